"""`qsci quantize`: a checkpoint, and nothing else, to an exported network."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from qsci_plugins.commands.options import add_options, option, optional_path, positive, read_settings
from qsci_plugins.comparing.settings import QuantizeSettings

if TYPE_CHECKING:
    from qsci_plugins.progress import Progress

__all__ = ["add", "quantize_file"]


def add(commands: Any) -> None:
    """Adds the command to a parser."""
    parser = commands.add_parser(
        "quantize", help="quantize, measure and export the network in a file, without a recipe (goes on after Ctrl-C)"
    )
    add_options(
        parser,
        QuantizeSettings,
        weights=option(type=Path, metavar="FILE", help="a network's weights, recognised by their names and shapes"),
        images=option(
            "--images",
            type=Path,
            metavar="DIR",
            help="images as the network is given them, to calibrate and (others) to measure on (default: built-in photos)",
        ),
        truth=option(
            "--truth",
            type=Path,
            metavar="DIR",
            help="high-resolution images to measure the loss against, or such a set",
        ),
        bits=option("--bits", choices=("8", "6", "4", "auto"), help="of weights and activations (default: 8)"),
        max_loss=option(
            "--max-loss",
            type=decibels,
            metavar="DB",
            help="most dB to lose; layers that cost more get 8 bits or stay float (default: any; 0.1 for auto bits)",
        ),
        backend=option("--backend", choices=("nncf", "brevitas"), help="default: nncf"),
        scale=option("--scale", type=positive, metavar="N", help="how much it enlarges, where the weights do not tell"),
        seed=option("--seed", type=int, metavar="N", help="of the calibration's patches (default: 0)"),
    )
    parser.set_defaults(execute=_execute)


def decibels(text: str) -> float:
    """The type of an argument in dB above 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < 100:
        raise argparse.ArgumentTypeError(f"should be dB above 0, such as 0.1, not {text!r}")
    return value


def quantize_file(
    weights: str | Path,
    output: str | Path,
    *,
    images: str | Path | None = None,
    truth: str | Path | None = None,
    bits: Literal["8", "6", "4", "auto"] = "8",
    max_loss: float | None = None,
    backend: Literal["nncf", "brevitas"] = "nncf",
    scale: int | None = None,
    seed: int = 0,
    device: str | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Quantizes the network in a file without a recipe; see `comparing.quantizing.run_quantize` for what it returns.

    `output` holds what `run` leaves, by the recipe.yaml in it.

    >>> import torch, qsci_plugins
    >>> model = qsci_plugins.load_network("edsr", None, 2, blocks=1, width=4).module
    >>> torch.save(model.state_dict(), "mine.pth")
    >>> result = qsci_plugins.quantize_file("mine.pth", "runs/mine", backend="brevitas")
    >>> result["architecture"], result["bits"], result["layers"]
    ('edsr', 8, 6)
    """
    settings = QuantizeSettings(
        weights=Path(weights),
        output=Path(output),
        images=optional_path(images),
        truth=optional_path(truth),
        bits=bits,
        max_loss=max_loss,
        backend=backend,
        scale=scale,
        seed=seed,
        device=device,
        force=force,
    )
    return _quantize(settings, progress)


def _quantize(settings: QuantizeSettings, progress: Progress | None) -> dict[str, Any]:
    from functools import partial

    from qsci_plugins.comparing.quantizing import run_quantize
    from qsci_plugins.report.page import write_report

    return run_quantize(settings, progress, partial(write_report, progress=progress), partial(_summarise, progress))


def _summarise(progress: Progress | None, metrics: Mapping[str, Any], folder: Path) -> None:
    """summary.md and report.html once more, with the latency."""
    from qsci_plugins.files import write_text
    from qsci_plugins.progress import Progress
    from qsci_plugins.report.page import REPORT_FILE, run_content, write_page
    from qsci_plugins.report.summary import summary

    pictures = sorted(file.name for file in folder.glob("*.png"))
    write_text(folder / "summary.md", summary(metrics, pictures))
    write_page(folder / REPORT_FILE, [run_content(folder)], progress or Progress())


def _execute(arguments: argparse.Namespace) -> int:
    from qsci_plugins.commands.console import console_progress
    from qsci_plugins.report.quantize_table import quantize_table

    settings = read_settings(QuantizeSettings, arguments)
    with console_progress() as progress:
        result = _quantize(settings, progress)
    print(quantize_table(result, settings.weights.name))
    print(f"\n{settings.output}")
    return 0

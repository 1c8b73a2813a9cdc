"""`qsci evaluate`: a finished run, or an exported model, on benchmark sets."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qsci_plugins.commands.options import add_options, option, optional_path, read_settings
from qsci_plugins.comparing.settings import EvaluateSettings

if TYPE_CHECKING:
    from qsci_plugins.progress import Progress

__all__ = ["add", "evaluate"]


def add(commands: Any) -> None:
    """Adds the command to a parser."""
    parser = commands.add_parser("evaluate", help="measure a finished run on sets of images or scenes")
    add_options(
        parser,
        EvaluateSettings,
        run=option(type=Path, metavar="RUN", help="an output of `qsci run`, or the model folder in it"),
    )
    parser.add_argument("--format", choices=("md", "json"), default="md", help="what to print (default: md)")
    parser.set_defaults(execute=_execute)


def evaluate(
    run: str | Path,
    *,
    data: str | Path | None = None,
    sets: Sequence[str] | None = None,
    device: str | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """PSNR (of images on Y), SSIM and FAB by set and form, for images or video.

    See `comparing.evaluate.evaluate_run`.

    With the run that the example of `run` makes:

    >>> from pathlib import Path
    >>> from PIL import Image
    >>> import qsci_plugins
    >>> Path("photos").mkdir(exist_ok=True)
    >>> Image.linear_gradient("L").convert("RGB").resize((96, 64)).save("photos/gradient.png")
    >>> list(qsci_plugins.evaluate("runs/tiny", sets=["./photos"]))
    ['photos']
    """
    from qsci_plugins.comparing.evaluate import evaluate_run

    return evaluate_run(EvaluateSettings(run=Path(run), data=optional_path(data), sets=sets, device=device), progress)


def _execute(arguments: argparse.Namespace) -> int:
    from qsci_plugins.commands.console import console_progress
    from qsci_plugins.comparing.evaluate import evaluate_run, task_of_run
    from qsci_plugins.report.summary import patch_table, quality_table

    settings = read_settings(EvaluateSettings, arguments)
    with console_progress() as progress:
        sets = evaluate_run(settings, progress)
    if arguments.format == "json":
        print(json.dumps(sets, indent=2))
    else:
        parts = quality_table(sets, task_of_run(settings.run)), patch_table(sets)
        print("\n\n".join(part for part in parts if part))
    return 0

"""`qsci run`: the main job."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qsci_plugins.errors import UserError

if TYPE_CHECKING:
    from qsci_plugins.progress import Progress
    from qsci_plugins.recipes.schema import Recipe, VideoRecipe

__all__ = ["add", "run"]


def add(commands: Any) -> None:
    """Adds the command to a parser."""
    from qsci_plugins.commands.options import add_data, add_device, add_output, add_overrides

    parser = commands.add_parser(
        "run", help="quantize a network as a recipe says, measure it and export it (goes on after Ctrl-C)"
    )
    parser.add_argument("recipe", metavar="RECIPE", help="a recipe file, or the name of a shipped one (`qsci recipes`)")
    add_output(parser)
    add_overrides(parser)
    add_data(parser)
    add_device(parser)
    parser.set_defaults(execute=_execute)


def run(
    recipe: Recipe | VideoRecipe | str | Path,
    output: str | Path,
    *,
    overrides: Sequence[str] = (),
    data: str | Path | None = None,
    device: str | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Runs a quantization recipe (a file, a shipped name, or read already) and returns the output folder.

    The folder appears when everything in it is complete: model/ (OpenVINO), checkpoint.pt (torch), metrics.json,
    summary.md, report.html, pictures and recipe.yaml. `device` (auto, cpu, cuda, cuda:N) goes before the recipe's. See
    `pipeline.run.run_recipe` for the rest, and for what it raises.

    >>> import qsci_plugins
    >>> recipe = qsci_plugins.make_recipe(
    ...     {
    ...         "version": 1,
    ...         "model": {"architecture": "edsr", "scale": 2, "settings": {"blocks": 1, "width": 4}},
    ...         "scheme": {"name": "adabm", "weight_bits": 4, "activation_bits": 4},
    ...         "place": {"targets": ["body.*"], "eight_bit": ["head.*", "tail.*"]},
    ...         "calibrate": {"count": 2, "patch": 16, "batch": 2},
    ...         "export": {"openvino": {"mode": "static", "tile": [32, 40]}},
    ...     }
    ... )
    >>> output = qsci_plugins.run(recipe, "runs/tiny")
    >>> (output / "model").is_dir(), (output / "metrics.json").is_file()
    (True, True)
    """
    from qsci_plugins.recipes.library import find_recipe
    from qsci_plugins.recipes.reading import on_device, read_recipe
    from qsci_plugins.recipes.schema import FloatRecipe, FloatVideoRecipe

    name = recipe if isinstance(recipe, (str, Path)) else "the recipe"
    read = read_recipe(find_recipe(recipe), overrides) if isinstance(recipe, (str, Path)) else recipe
    if isinstance(read, (FloatRecipe, FloatVideoRecipe)):
        raise UserError(f"{name} trains a float network; run it with `qsci train`")
    from qsci_plugins.pipeline.run import run_recipe
    from qsci_plugins.report.page import write_report

    read = on_device(read, device)
    report = partial(write_report, progress=progress)
    return run_recipe(read, output, data=data, force=force, progress=progress, report=report)


def _execute(arguments: argparse.Namespace) -> int:
    from qsci_plugins.commands.console import console_progress
    from qsci_plugins.pipeline.output import is_main

    with console_progress() as progress:
        output = run(
            arguments.recipe,
            arguments.output,
            overrides=arguments.overrides,
            data=arguments.data,
            device=arguments.device,
            force=arguments.force,
            progress=progress,
        )
    if is_main():
        print((output / "summary.md").read_text(encoding="utf-8"), end="")
        print(f"\n{output}")
    return 0

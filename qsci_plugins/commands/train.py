"""`qsci train`: a float network from a recipe."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qsci_plugins.errors import UserError

if TYPE_CHECKING:
    from qsci_plugins.progress import Progress
    from qsci_plugins.recipes.schema import FloatRecipe, FloatVideoRecipe

__all__ = ["add", "train"]


def add(commands: Any) -> None:
    """Adds the command to a parser."""
    from qsci_plugins.commands.options import add_data, add_device, add_output, add_overrides

    parser = commands.add_parser("train", help="train a float network (goes on after Ctrl-C)")
    parser.add_argument(
        "recipe", metavar="RECIPE", help="a recipe file, or the name of a shipped one: float/edsr_x4 and the like"
    )
    add_output(parser)
    add_overrides(parser)
    add_data(parser)
    add_device(parser)
    parser.set_defaults(execute=_execute)


def train(
    recipe: FloatRecipe | FloatVideoRecipe | str | Path,
    output: str | Path,
    *,
    overrides: Sequence[str] = (),
    data: str | Path | None = None,
    device: str | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Runs a float-training recipe (a file, a shipped name, or read already) and returns the output folder.

    `device` (auto, cpu, cuda, cuda:N) goes before the recipe's. See `pipeline.float_run.train_recipe` for the rest, and
    for what it raises.

    >>> from pathlib import Path
    >>> from PIL import Image
    >>> import qsci_plugins
    >>> Path("photos").mkdir(exist_ok=True)
    >>> Image.linear_gradient("L").convert("RGB").resize((96, 64)).save("photos/gradient.png")
    >>> recipe = qsci_plugins.make_recipe(
    ...     {
    ...         "version": 1,
    ...         "model": {"architecture": "edsr", "scale": 2, "settings": {"blocks": 1, "width": 4}},
    ...         "data": [{"path": "photos"}],
    ...         "train": {"steps": 2, "batch": 2, "patch": 8},
    ...     }
    ... )
    >>> (qsci_plugins.train(recipe, "runs/float") / "metrics.json").is_file()
    True
    """
    from qsci_plugins.recipes.library import find_recipe
    from qsci_plugins.recipes.reading import on_device, read_recipe
    from qsci_plugins.recipes.schema import Recipe, VideoRecipe

    name = recipe if isinstance(recipe, (str, Path)) else "the recipe"
    read = read_recipe(find_recipe(recipe), overrides) if isinstance(recipe, (str, Path)) else recipe
    if isinstance(read, (Recipe, VideoRecipe)):
        raise UserError(f"{name} quantizes a network; run it with `qsci run`")
    from qsci_plugins.pipeline.float_run import train_recipe

    return train_recipe(on_device(read, device), output, data=data, force=force, progress=progress)


def _execute(arguments: argparse.Namespace) -> int:
    from qsci_plugins.commands.console import console_progress
    from qsci_plugins.pipeline.output import is_main

    with console_progress() as progress:
        output = train(
            arguments.recipe,
            arguments.output,
            overrides=arguments.overrides,
            data=arguments.data,
            device=arguments.device,
            force=arguments.force,
            progress=progress,
        )
    if is_main():
        print(output)
    return 0

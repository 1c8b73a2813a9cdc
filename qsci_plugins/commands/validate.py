"""`qsci validate`: reads recipes, and looks for the files that they name, without running them."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from qsci_plugins.commands.console import one_line
from qsci_plugins.commands.options import add_overrides
from qsci_plugins.errors import UserError

__all__ = ["add"]


def add(commands: Any) -> None:
    """Adds the command to a parser."""
    parser = commands.add_parser("validate", help="check recipe files without running them")
    parser.add_argument("files", nargs="+", metavar="RECIPE", help="recipe files, or names of shipped ones")
    add_overrides(parser)
    parser.set_defaults(execute=_execute)


def _execute(arguments: argparse.Namespace) -> int:
    from qsci_plugins.recipes.library import find_recipe, shipped_recipes
    from qsci_plugins.recipes.reading import check_paths, read_recipe

    wrong = 0
    for name in arguments.files:
        try:
            file = find_recipe(name)
            recipe = read_recipe(file, arguments.overrides)
        except UserError as error:
            wrong += 1
            print(f"qsci: error: {one_line(error)}", file=sys.stderr)
            continue
        try:
            check_paths(recipe)
        except UserError as error:
            if file in {shipped.file for shipped in shipped_recipes()}:  # whose data is for the user to bring
                print(f"{name}: valid; it needs {one_line(error)}")
                continue
            wrong += 1
            print(f"qsci: error: {name}: {one_line(error)}", file=sys.stderr)
        else:
            print(f"{name}: valid")
    return 2 if wrong else 0

"""`qsci recipes`: what comes with the package."""

from __future__ import annotations

import argparse
from typing import Any

__all__ = ["add"]


def add(commands: Any) -> None:
    """Adds the command to a parser."""
    parser = commands.add_parser("recipes", help="list the recipes that come with the package")
    parser.set_defaults(execute=_execute)


def _execute(arguments: argparse.Namespace) -> int:
    from qsci_plugins.recipes.library import shipped_recipes

    recipes = shipped_recipes()
    width = max((len(recipe.name) for recipe in recipes), default=0)
    for recipe in recipes:
        print(f"{recipe.name:<{width}}  {recipe.description}")
    return 0

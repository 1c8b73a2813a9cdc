"""Recipes: what to do with which network, as a file."""

from __future__ import annotations

from qsci_plugins.recipes.library import ShippedRecipe, find_recipe, shipped_recipes
from qsci_plugins.recipes.reading import make_recipe, read_recipe, recipe_text, write_recipe
from qsci_plugins.recipes.schema import AnyRecipe, FloatRecipe, Recipe

__all__ = [
    "AnyRecipe",
    "FloatRecipe",
    "Recipe",
    "ShippedRecipe",
    "find_recipe",
    "make_recipe",
    "read_recipe",
    "recipe_text",
    "shipped_recipes",
    "write_recipe",
]

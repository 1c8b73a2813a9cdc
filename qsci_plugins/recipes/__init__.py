"""Recipes: what to do with which network, as a file."""

from __future__ import annotations

from qsci_plugins.recipes.library import ShippedRecipe, find_recipe, shipped_recipes
from qsci_plugins.recipes.reading import AnyRecipe, make_recipe, read_recipe, recipe_text, write_recipe
from qsci_plugins.recipes.schema import FloatRecipe, FloatVideoRecipe, Recipe, VideoRecipe

__all__ = [
    "AnyRecipe",
    "FloatRecipe",
    "FloatVideoRecipe",
    "Recipe",
    "ShippedRecipe",
    "VideoRecipe",
    "find_recipe",
    "make_recipe",
    "read_recipe",
    "recipe_text",
    "shipped_recipes",
    "write_recipe",
]

"""Commands that measure on sets of images refuse what reconstructs video, and say what measures that."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

from qsci_plugins.errors import UserError
from qsci_plugins.recipes.reading import AnyRecipe
from qsci_plugins.recipes.video_schema import FloatVideoRecipe, VideoRecipe

__all__ = ["refuse_video", "refuse_video_recipe"]


def refuse_video_recipe(recipe: AnyRecipe, source: str | Path) -> None:
    """Raises UserError where the recipe of `source` is for video."""
    if isinstance(recipe, VideoRecipe | FloatVideoRecipe):
        refuse_video(source)


def refuse_video(source: str | Path) -> NoReturn:
    """Raises the UserError that says so."""
    raise UserError(
        f"{source} is for video, which image sets do not measure; a run's own metrics.json has its PSNR, and"
        " `qsci reconstruct` measures other scenes"
    )

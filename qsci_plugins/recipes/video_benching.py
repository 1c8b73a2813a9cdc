"""`qsci bench` for networks that reconstruct video: the rows, each with the PSNR of the scenes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qsci_plugins.data.snapshot_sources import BUILTIN_SCENE
from qsci_plugins.errors import UserError
from qsci_plugins.recipes.bench_rows import Bench
from qsci_plugins.recipes.failures import Failed
from qsci_plugins.recipes.video_contenders import VideoContender, exported_videos, plain_videos
from qsci_plugins.recipes.video_data import open_scenes
from qsci_plugins.recipes.video_measure import measure_video
from qsci_plugins.recipes.video_prepare import prepare_video
from qsci_plugins.recipes.video_schema import VideoRecipe

__all__ = ["video_rows"]


def video_rows(bench: Bench, data: Path | None) -> list[dict[str, Any]]:
    """A row for every form of the network; `psnr` in dB, mean over the scenes below `data`, else the built-in one.

    Raises UserError for scenes of another number of frames, or without true ones.
    """
    manifest, progress = bench.manifest, bench.progress
    assert manifest.frames is not None
    scenes = open_scenes(data or BUILTIN_SCENE, manifest.frames, manifest.channels == 3)
    for scene in scenes:
        if len(scene.mask) != manifest.frames:
            raise UserError(
                f"{scene.name} has {len(scene.mask)} frames in one measurement, {bench.model} {manifest.frames};"
                " give --data a folder of scenes with as many"
            )
    contenders: list[VideoContender | Failed] = [*exported_videos(bench.folder, bench.threads, bench.export_seconds())]
    recipe = bench.recipe()
    if isinstance(recipe, VideoRecipe):
        prepared = prepare_video(recipe.model_copy(update={"evaluate": [], "train": None}), progress)
        with progress.stage(f"{bench.model}: OpenVINO and NNCF without us", 1) as advance:
            contenders = [*plain_videos(prepared, manifest, bench.temporary, bench.threads), *contenders]
            advance(1)
    rows = bench.rows(contenders, bursts=1)
    name = BUILTIN_SCENE if data is None else data.name
    forms = {one.name: one.way for one in contenders if not isinstance(one, Failed)}
    told = measure_video(forms, {name: scenes}, progress)[name]
    for row in rows:
        if row["name"] in forms:
            row["psnr"] = {name: round(told[row["name"]]["psnr"], 4)}
    return rows

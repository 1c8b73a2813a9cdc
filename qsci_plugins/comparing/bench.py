"""Exported models beside what there is without this package: time, memory, size and PSNR, row by row."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from qsci_plugins.comparing.contenders import Bench, torch_threads
from qsci_plugins.comparing.image_contenders import ImageContender, exported_images, plain_images
from qsci_plugins.comparing.video_contenders import VideoContender, exported_videos, plain_videos
from qsci_plugins.data.snapshot_sources import BUILTIN_SCENE
from qsci_plugins.errors import UserError
from qsci_plugins.evaluation.baselines import Failed
from qsci_plugins.evaluation.benchmark import BenchmarkSet, evaluate
from qsci_plugins.evaluation.latency import usable_threads
from qsci_plugins.openvino.manifest import MANIFEST, load_manifest
from qsci_plugins.pipeline.image_prepare import find_sets, prepare
from qsci_plugins.pipeline.video_forms import measure_video
from qsci_plugins.pipeline.video_prepare import open_scenes, prepare_video
from qsci_plugins.progress import Progress
from qsci_plugins.recipes.schema import Recipe, VideoRecipe

__all__ = ["bench_model", "video_rows"]


def bench_model(
    model: str | Path,
    data: str | Path | None = None,
    sets: Sequence[str] | None = None,
    *,
    repeats: int = 20,
    threads: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Latency of one tile, tiles per second, peak memory, size, seconds of export and PSNR of every form.

    `model` is the output of `qsci run`, whose float network gives the rows for torch, OpenVINO fp32, bf16 (where the CPU
    has it), NNCF's default INT8 and static INT8 at the recipe's placement, both calibrated on the recipe's patches or
    clips; or a model folder, which has its own rows alone. All forms take turns in one process. Of these other ways one
    that fails on the network keeps its row, with the reason in `failed` and no numbers.

    For images `data` is a folder of benchmark sets, of which `sets` names some (default: builtin), and rows have
    `psnr_y`; for video it is a folder of .mat files or clips (default: the built-in scene), and rows have `psnr`.
    Raises UserError for a folder that is neither, and for sets or scenes that are not there.
    """
    model = Path(model)
    threads = threads or usable_threads()
    if not model.is_dir():
        raise UserError(f"there is no model folder {model}; give the output of `qsci run`, or a model folder")
    folder = model if (model / MANIFEST).is_file() else model / "model"
    manifest = load_manifest(folder)
    told = {"model": str(model), "tile": list(manifest.tile), "threads": threads, "repeats": repeats}
    data = None if data is None else Path(data)
    with TemporaryDirectory(prefix="qsci-bench-") as temporary, torch_threads(threads):
        bench = Bench(model, folder, manifest, Path(temporary), threads, repeats, progress or Progress())
        if manifest.task == "sr":
            return {**told, "rows": _image_rows(bench, data, sets)}
        if sets is not None:
            raise UserError(f"{model} is for video: leave out --sets, and give --data a folder of .mat files")
        return {**told, "frames": manifest.frames, "rows": video_rows(bench, data)}


def _image_rows(bench: Bench, data: Path | None, sets: Sequence[str] | None) -> list[dict[str, Any]]:
    names = sets or (["builtin"] if data is None else None)
    images = find_sets([], data, bench.manifest.scale, names)
    contenders: list[ImageContender | Failed] = [*exported_images(bench.folder, bench.threads, bench.export_seconds())]
    recipe = bench.recipe()
    if recipe is not None:
        if not isinstance(recipe, Recipe):
            raise UserError(f"{bench.model} is the output of `qsci train`; `qsci bench` takes that of `qsci run`")
        prepared = prepare(recipe.model_copy(update={"evaluate": []}))
        with bench.progress.stage(f"{bench.model}: OpenVINO and NNCF without us", 1) as advance:
            contenders = [*plain_images(prepared, bench.manifest, bench.temporary, bench.threads), *contenders]
            advance(1)
    rows = bench.rows(contenders)
    for row, contender in zip(rows, contenders, strict=True):
        if not isinstance(contender, Failed):
            row["psnr_y"] = _quality(contender, images, f"{bench.model}: {contender.title}", bench.progress)
    return rows


def _quality(
    contender: ImageContender, images: Sequence[BenchmarkSet], title: str, progress: Progress
) -> dict[str, float]:
    quality = {}
    for benchmark in images:
        with progress.stage(f"{title} on {benchmark.name}", len(benchmark.images)) as advance:
            result = evaluate(contender.way, benchmark, lambda done, total, one, advance=advance: advance(done))  # type: ignore[misc]
        quality[benchmark.name] = round(result.psnr_y, 4)
    return quality


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

"""Exported models beside what there is without this package: time, memory, size and PSNR, row by row."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import openvino

from qsci_plugins.errors import UserError
from qsci_plugins.evaluation.benchmark import BenchmarkSet, evaluate
from qsci_plugins.openvino.footprint import peak_memory
from qsci_plugins.openvino.latency import measure, measure_throughput
from qsci_plugins.openvino.manifest import MANIFEST, Manifest, load_manifest
from qsci_plugins.progress import Progress
from qsci_plugins.recipes.benchmarks import find_sets
from qsci_plugins.recipes.contenders import Contender, exported_contenders, plain_contenders
from qsci_plugins.recipes.latency import latency_row, usable_threads
from qsci_plugins.recipes.outputs import RECIPE_FILE
from qsci_plugins.recipes.reading import read_recipe
from qsci_plugins.recipes.schema import Recipe
from qsci_plugins.recipes.video_schema import VideoRecipe

__all__ = ["bench_model"]


def bench_model(
    model: str | Path,
    data: str | Path | None = None,
    sets: Sequence[str] | None = None,
    *,
    repeats: int = 20,
    threads: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Latency of one tile, tiles per second, peak memory, size and PSNR-Y on sets (default: builtin) of every form.

    `model` is the output of `qsci run`, whose float network gives the rows for torch, OpenVINO fp32, bf16 (where the CPU
    has it), NNCF's default INT8 and static INT8 at the recipe's placement, both calibrated on the recipe's patches; or a
    model folder, which has its own rows alone. All forms take turns in one process.
    Raises UserError for a folder that is neither, and for sets that are not there.
    """
    model = Path(model)
    progress = progress or Progress()
    threads = threads or usable_threads()
    data = None if data is None else Path(data)
    if not model.is_dir():
        raise UserError(f"there is no model folder {model}; give the output of `qsci run`, or a model folder")
    folder = model if (model / MANIFEST).is_file() else model / "model"
    manifest = load_manifest(folder)
    names = sets or (["builtin"] if data is None else None)
    images = find_sets([], data, manifest.scale, names)
    with TemporaryDirectory(prefix="qsci-bench-") as temporary:
        contenders = exported_contenders(folder, threads)
        if (model / RECIPE_FILE).is_file():
            with progress.stage(f"{model}: OpenVINO and NNCF without us", 1) as advance:
                contenders = _plain(model, manifest, Path(temporary), threads) + contenders
                advance(1)
        rows = _timed(contenders, manifest, threads, repeats, f"{model}: ", progress)
        for row, contender in zip(rows, contenders, strict=True):
            row["psnr_y"] = _quality(contender, images, f"{model}: {contender.title}", progress)
    return {"model": str(model), "tile": list(manifest.tile), "threads": threads, "repeats": repeats, "rows": rows}


def _plain(model: Path, manifest: Manifest, folder: Path, threads: int) -> list[Contender]:
    from qsci_plugins.recipes.prepare import prepare

    recipe = read_recipe(model / RECIPE_FILE)
    if isinstance(recipe, VideoRecipe):
        raise UserError(f"{model} is for video; `qsci reconstruct` measures it")
    if not isinstance(recipe, Recipe):
        raise UserError(f"{model} is the output of `qsci train`; `qsci bench` takes that of `qsci run`")
    return plain_contenders(prepare(recipe.model_copy(update={"evaluate": []})), manifest, folder, threads)


def _timed(
    contenders: Sequence[Contender], manifest: Manifest, threads: int, repeats: int, title: str, progress: Progress
) -> list[dict[str, Any]]:
    with progress.stage(f"{title}latency", 1) as advance:
        latencies = measure({one.name: one.tile for one in contenders}, manifest.tile, repeats)
        advance(1)
    with progress.stage(f"{title}throughput", 1) as advance:
        compiled: dict[str, openvino.CompiledModel] = {
            one.name: graph for one in contenders if (graph := one.throughput(threads)) is not None
        }
        rates = measure_throughput(compiled, manifest.tile)
        advance(1)
    rows = []
    with progress.stage(f"{title}memory", len(contenders)) as advance:
        for done, one in enumerate(contenders, 1):
            memory = None
            if one.graph is not None:
                memory = peak_memory(one.graph, one.weights, manifest.tile, precision=one.precision, threads=threads)
            rows.append(
                {
                    **latency_row(one.name, one.title, latencies[one.name]),
                    "tiles_per_second": None if one.name not in rates else round(rates[one.name], 2),
                    "peak_mib": None if memory is None else round(memory, 1),
                    "file_bytes": one.file_bytes,
                }
            )
            advance(done)
    return rows


def _quality(contender: Contender, images: Sequence[BenchmarkSet], title: str, progress: Progress) -> dict[str, float]:
    quality = {}
    for benchmark in images:
        with progress.stage(f"{title} on {benchmark.name}", len(benchmark.images)) as advance:
            result = evaluate(contender.upscale, benchmark, lambda done, total, one, advance=advance: advance(done))  # type: ignore[misc]
        quality[benchmark.name] = round(result.psnr_y, 4)
    return quality

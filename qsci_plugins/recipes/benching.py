"""Exported models beside what there is without this package: milliseconds and PSNR, row by row."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qsci_plugins.errors import UserError
from qsci_plugins.evaluation.benchmark import BenchmarkSet, evaluate
from qsci_plugins.openvino.manifest import MANIFEST, load_manifest
from qsci_plugins.openvino.runtime import Upscaler
from qsci_plugins.progress import Progress
from qsci_plugins.recipes.benchmarks import find_sets
from qsci_plugins.recipes.latency import compile_ours, measured_latency, usable_threads
from qsci_plugins.recipes.measure import Form
from qsci_plugins.recipes.outputs import RECIPE_FILE
from qsci_plugins.recipes.reading import read_recipe
from qsci_plugins.recipes.schema import Recipe

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
    """Latency of one tile and PSNR-Y on benchmark sets (default: builtin) for every form of one model.

    `model` is the output of `qsci run`, whose float network gives the rows for OpenVINO fp32, bf16 (where the CPU has
    it) and NNCF's default INT8, calibrated on the recipe's patches; or a model folder, which has one row, its own.
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
    upscaler = Upscaler(folder, threads=threads, precision="auto")
    forms = {"ours": Form(upscaler.upscale)}
    compiled = {"ours": compile_ours(folder, threads)}
    if (model / RECIPE_FILE).is_file():
        with progress.stage(f"{model}: OpenVINO and NNCF without us", 1) as advance:
            compiled, forms = _all_forms(model, folder, threads, forms["ours"])
            advance(1)
    with progress.stage(f"{model}: latency", 1) as advance:
        rows = measured_latency(compiled, manifest.tile, repeats)
        advance(1)
    for row in rows:
        row["psnr_y"] = _quality(forms[row["name"]], images, f"{model}: {row['title']}", progress)
    return {"model": str(model), "tile": list(manifest.tile), "threads": threads, "repeats": repeats, "rows": rows}


def _all_forms(model: Path, folder: Path, threads: int, ours: Form) -> tuple[dict[str, Any], dict[str, Form]]:
    from qsci_plugins.recipes.baselines import TiledGraph
    from qsci_plugins.recipes.latency import compile_forms
    from qsci_plugins.recipes.prepare import prepare

    recipe = read_recipe(model / RECIPE_FILE)
    if not isinstance(recipe, Recipe):
        raise UserError(f"{model} is the output of `qsci train`; `qsci bench` takes that of `qsci run`")
    prepared = prepare(recipe.model_copy(update={"evaluate": []}))
    network, manifest = prepared.network, load_manifest(folder)
    compiled = compile_forms(network, prepared.patches, folder, manifest.tile, threads)
    forms = {
        name: ours if name == "ours" else Form(TiledGraph(graph, network, manifest.tile, manifest.overlap).upscale)
        for name, graph in compiled.items()
    }
    return compiled, forms


def _quality(form: Form, images: Sequence[BenchmarkSet], title: str, progress: Progress) -> dict[str, float]:
    quality = {}
    for benchmark in images:
        with progress.stage(f"{title} on {benchmark.name}", len(benchmark.images)) as advance:
            result = evaluate(form.upscale, benchmark, lambda done, total, one, advance=advance: advance(done))  # type: ignore[misc]
        quality[benchmark.name] = round(result.psnr_y, 4)
    return quality

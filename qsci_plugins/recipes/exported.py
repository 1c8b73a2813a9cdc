"""The exported network: written, run as one of the forms to compare, and timed beside what OpenVINO users have today."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from qsci_plugins.openvino.manifest import load_manifest
from qsci_plugins.openvino.runtime import Upscaler
from qsci_plugins.recipes.measure import Form
from qsci_plugins.recipes.prepare import Prepared
from qsci_plugins.recipes.progress import Progress
from qsci_plugins.schemes.scheme import QuantizedNetwork

__all__ = ["export_network", "measure_latency", "model_scale", "openvino_form"]

#: patches that NNCF's default quantization sees where only its speed is of interest
_SPEED_PATCHES = 4


def export_network(prepared: Prepared, quantized: QuantizedNetwork, folder: Path, progress: Progress) -> None:
    """Writes the model folder that the recipe's `export.openvino` asks for."""
    from qsci_plugins.openvino.export import export_routed, export_static

    settings, network = prepared.recipe.export.openvino, prepared.network
    height, width = settings.tile
    write = export_routed if settings.mode == "routed" else export_static
    with progress.stage("export", 1) as advance:
        write(
            quantized,
            network.module,
            folder,
            tile=(height, width),
            scale=network.scale,
            overlap=prepared.overlap,
            about={"architecture": network.architecture, "backend": quantized.backend},
        )
        advance(1)


def openvino_form(folder: Path) -> Form:
    """The model folder through its runtime; an image's FAB is that of its tiles, weighted by their area."""
    upscaler = Upscaler(folder)

    def fab() -> dict[str, float]:
        areas = [tile.height * tile.width for tile in upscaler.last_routes]
        bits = [tile.bits for tile in upscaler.last_routes]
        return {"fab": sum(area * one for area, one in zip(areas, bits, strict=True)) / sum(areas)}

    return Form(upscaler.upscale, fab)


def model_scale(folder: Path) -> int:
    """How much a model folder enlarges."""
    return load_manifest(folder).scale


def measure_latency(prepared: Prepared, folder: Path, progress: Progress, repeats: int = 10) -> dict[str, Any]:
    """Milliseconds of one tile, interleaved in one process: OpenVINO fp32, bf16 (if any), NNCF's default INT8, ours."""
    from qsci_plugins.nncf.backend import default_int8
    from qsci_plugins.openvino.convert import convert
    from qsci_plugins.openvino.latency import has_bf16, measure, open_graph

    network = prepared.network
    height, width = prepared.recipe.export.openvino.tile
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    titles = {"fp32": "OpenVINO fp32", "bf16": "OpenVINO bf16", "nncf_int8": "NNCF default INT8", "ours": "ours"}
    with progress.stage("latency", 1) as advance:
        shape = (1, network.channels, height, width)
        plain = convert(network.module, shape, network.value_range)
        compiled = {"fp32": open_graph(plain, precision="f32", threads=threads)}
        if has_bf16():
            compiled["bf16"] = open_graph(plain, precision="bf16", threads=threads)
        batches = [patch[None] for patch in prepared.patches[:_SPEED_PATCHES]]
        default = convert(default_int8(network.module, batches), shape, network.value_range)
        compiled["nncf_int8"] = open_graph(default, threads=threads)
        manifest = load_manifest(folder)
        graph, weights = folder / manifest.route(0).graph.name, folder / manifest.weights.name
        compiled["ours"] = open_graph(graph, weights, threads=threads)
        results = measure(compiled, (height, width), repeats)
        advance(1)
    rows = [
        {
            "name": name,
            "title": titles[name],
            "median_ms": round(one.median_ms, 2),
            "fast_ms": round(one.fast_ms, 2),
            "slowest_ms": round(one.slowest_ms, 2),
        }
        for name, one in results.items()
    ]
    return {"tile": [height, width], "threads": threads, "repeats": repeats, "rows": rows}

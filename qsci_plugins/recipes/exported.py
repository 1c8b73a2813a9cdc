"""The exported network: written, run as one of the forms to compare, and timed beside what OpenVINO users have today."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from qsci_plugins.openvino.latency import measure, open_exported, open_graph
from qsci_plugins.openvino.manifest import load_manifest
from qsci_plugins.openvino.precisions import runtime_precisions
from qsci_plugins.openvino.runtime import Upscaler
from qsci_plugins.progress import Progress
from qsci_plugins.recipes.baselines import PlainGraph, float_graph, plain_graphs, tile_samples
from qsci_plugins.recipes.failures import Failed
from qsci_plugins.recipes.latency import failed_row, latency_row, usable_threads
from qsci_plugins.recipes.measure import Form
from qsci_plugins.recipes.prepare import Prepared
from qsci_plugins.schemes.scheme import QuantizedNetwork

__all__ = ["export_network", "measure_latency", "model_scale", "openvino_form"]

#: patches that NNCF's default quantization sees where only its speed is of interest
_SPEED_PATCHES = 4
_REPEATS = 10


def export_network(prepared: Prepared, quantized: QuantizedNetwork, folder: Path, progress: Progress) -> None:
    """Writes the model folder that the recipe's `export.openvino` asks for."""
    from qsci_plugins.openvino.export import export_upscaler

    settings, network = prepared.recipe.export.openvino, prepared.network
    assert settings.mode != "none"
    height, width = settings.tile
    with progress.stage("export", 1) as advance:
        export_upscaler(
            quantized,
            network.module,
            folder,
            tile=(height, width),
            scale=network.scale,
            mode=settings.mode,
            overlap=prepared.overlap,
            about={"architecture": network.architecture, "backend": quantized.backend},
        )
        advance(1)


def openvino_form(folder: Path, threads: int | None = None) -> Form:
    """The model folder through its runtime; an image's FAB is that of its tiles, weighted by their area.

    A tile's is that of its route, or what a graph that chooses its bits itself (`dynamic`, CADyQ's) tells.
    """
    upscaler = Upscaler(folder, precision="auto", threads=threads)

    def fab() -> dict[str, float]:
        areas = [tile.height * tile.width for tile in upscaler.last_routes]
        bits = [tile.bits for tile in upscaler.last_routes]
        return {"fab": sum(area * one for area, one in zip(areas, bits, strict=True)) / sum(areas)}

    return Form(upscaler.upscale, fab)


def model_scale(folder: Path) -> int:
    """How much a model folder enlarges."""
    return load_manifest(folder).scale


def measure_latency(prepared: Prepared, folder: Path, progress: Progress) -> dict[str, Any]:
    """Milliseconds of one tile, interleaved in one process: OpenVINO fp32, bf16 (if any), NNCF's default INT8, ours.

    And in which precision ours really runs: how many nodes of each kind take and give what.
    """
    height, width = prepared.recipe.export.openvino.tile
    network, threads = prepared.network, usable_threads()
    with progress.stage("latency", 1) as advance:
        samples = tile_samples(prepared.patches[:_SPEED_PATCHES], (height, width))
        entries = plain_graphs(lambda: float_graph(network, (height, width)), samples)
        plain = [one for one in entries if isinstance(one, PlainGraph)]
        compiled = {one.name: open_graph(one.graph, precision=one.precision, threads=threads) for one in plain}
        compiled["ours"] = open_exported(folder, threads)
        latencies = measure(compiled, (height, width), _REPEATS)
        rows = [
            failed_row(one) if isinstance(one, Failed) else latency_row(one.name, one.title, latencies[one.name])
            for one in entries
        ]
        rows.append(latency_row("ours", "ours", latencies["ours"]))
        advance(1)
    nodes = Counter((node.type, node.precision, node.output) for node in runtime_precisions(compiled["ours"]))
    precisions = [
        {"type": kind, "input": given, "output": made, "count": count}
        for (kind, given, made), count in nodes.most_common()
    ]
    return {
        "tile": [height, width],
        "threads": threads,
        "repeats": _REPEATS,
        "rows": rows,
        "precisions": precisions,
    }

"""The exported network: written, run as one of the forms to compare, and timed beside what OpenVINO users have today."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qsci_plugins.architectures.network import Network
from qsci_plugins.errors import UserError
from qsci_plugins.openvino.manifest import Manifest, load_manifest
from qsci_plugins.openvino.runtime import Upscaler
from qsci_plugins.progress import Progress
from qsci_plugins.recipes.measure import Form
from qsci_plugins.recipes.prepare import Prepared
from qsci_plugins.recipes.schema import OpenVINOExport
from qsci_plugins.schemes.scheme import QuantizedNetwork

__all__ = ["export_network", "measure_latency", "model_scale", "openvino_form", "write_model"]

#: patches that NNCF's default quantization sees where only its speed is of interest
_SPEED_PATCHES = 4
_REPEATS = 10


def export_network(prepared: Prepared, quantized: QuantizedNetwork, folder: Path, progress: Progress) -> None:
    """Writes the model folder that the recipe's `export.openvino` asks for."""
    with progress.stage("export", 1) as advance:
        write_model(prepared.network, quantized, folder, prepared.recipe.export.openvino, prepared.overlap)
        advance(1)


def write_model(
    network: Network, quantized: QuantizedNetwork, folder: Path, settings: OpenVINOExport, overlap: int | None = None
) -> Manifest:
    """Writes the model folder of a network for images, or of one for video, as the settings of a recipe say.

    `quantized` was made from `network.module`. Raises UserError for what cannot be exported.
    """
    from qsci_plugins.openvino.export import export
    from qsci_plugins.openvino.signature import ImageSignature, Signature, VideoSignature

    if settings.mode == "none":
        raise UserError("export.openvino.mode is none: nothing is exported")
    height, width = settings.tile
    signature: Signature
    if network.task == "sci":
        signature = VideoSignature((height, width), network.value_range, settings.frames, network.channels)
    else:
        signature = ImageSignature((height, width), network.value_range, network.scale)
    about = {"architecture": network.architecture, "backend": quantized.backend}
    return export(quantized, network.module, folder, signature, mode=settings.mode, overlap=overlap, about=about)


def openvino_form(folder: Path, threads: int | None = None) -> Form:
    """The model folder through its runtime; an image's FAB is that of its tiles, weighted by their area.

    A CADyQ graph chooses its bits itself and does not tell which; the manifest's are an upper bound, and no FAB.
    """
    upscaler = Upscaler(folder, precision="auto", threads=threads)
    if load_manifest(folder).about.get("scheme") == "cadyq":
        return Form(upscaler.upscale)

    def fab() -> dict[str, float]:
        areas = [tile.height * tile.width for tile in upscaler.last_routes]
        bits = [tile.bits for tile in upscaler.last_routes]
        return {"fab": sum(area * one for area, one in zip(areas, bits, strict=True)) / sum(areas)}

    return Form(upscaler.upscale, fab)


def model_scale(folder: Path) -> int:
    """How much a model folder enlarges."""
    return load_manifest(folder).scale


def measure_latency(prepared: Prepared, folder: Path, progress: Progress) -> dict[str, Any]:
    """Milliseconds of one tile, interleaved in one process: OpenVINO fp32, bf16 (if any), NNCF's default INT8, ours."""
    from qsci_plugins.recipes.latency import compile_forms, measured_latency, usable_threads

    height, width = prepared.recipe.export.openvino.tile
    threads = usable_threads()
    with progress.stage("latency", 1) as advance:
        compiled = compile_forms(prepared.network, prepared.patches[:_SPEED_PATCHES], folder, (height, width), threads)
        rows = measured_latency(compiled, (height, width), _REPEATS)
        advance(1)
    return {"tile": [height, width], "threads": threads, "repeats": _REPEATS, "rows": rows}

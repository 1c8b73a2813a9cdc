"""Quantized networks as model folders: integer graphs with static shapes, and a manifest that says how to use them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import openvino
import torch
from torch import nn

from qsci_plugins.openvino.attention import Operand
from qsci_plugins.openvino.convert import convert_like
from qsci_plugins.openvino.folder import name_files, write_folder
from qsci_plugins.openvino.grids import FACTORS
from qsci_plugins.openvino.ir import pack
from qsci_plugins.openvino.layers import DynamicLayer, StaticLayer
from qsci_plugins.openvino.lowering import check_exportable, is_exact_everywhere, layer_bits, lower
from qsci_plugins.openvino.manifest import Manifest, Route, StoredFile
from qsci_plugins.openvino.signature import ImageSignature, Signature, VideoSignature
from qsci_plugins.openvino.tiling import check_tile
from qsci_plugins.schemes.scheme import QuantizedNetwork

__all__ = [
    "DEFAULT_OVERLAP",
    "Mode",
    "export",
    "export_reconstructor",
    "export_upscaler",
]

#: "routed": a graph for each image factor; "static": one for an average image; "dynamic": one that chooses bits itself
Mode = Literal["routed", "static", "dynamic"]

#: for networks whose receptive field nobody knows, or which look at the whole image
DEFAULT_OVERLAP = 16

_ROUTE_NAMES = {-1: "minus", 0: "zero", 1: "plus"}


def export_upscaler(
    network: QuantizedNetwork,
    stock: nn.Module | None,
    folder: Path | str,
    *,
    tile: tuple[int, int],
    scale: int,
    mode: Mode = "routed",
    overlap: int | None = None,
    period: int = 1,
    about: Mapping[str, Any] | None = None,
) -> Manifest:
    """Writes a network that enlarges images as INT8 graphs of one static shape.

    `mode` "routed" writes a graph for each image factor -1, 0, 1 (one where all agree, or where the scheme has no image
    thresholds), and the runtime measures each tile to choose among them. "static" writes one, its bits those of an
    average image; bits that depend on a layer's input (CADyQ's) are chosen inside, and the manifest states the layer's
    widest candidate, an upper bound. "dynamic" writes one that chooses AdaBM's bits inside too.

    `stock` is the float network that was quantized (None: it is taken out of it),
    (N,3,H,W) in 0..`network.value_range` to scale times the size;
    `tile` the height and width of its input; `overlap` the receptive radius in input pixels (default 16); `period` what
    the places of tiles are multiples of, for a network with strides or windows. Raises UserError before calibration, for a
    tile that is too small, for what cannot run in integers, and where the folder cannot be written.
    """
    signature = ImageSignature(tile, network.value_range, scale, period)
    return export(network, stock, folder, signature, mode=mode, overlap=overlap, about=about)


def export_reconstructor(
    network: QuantizedNetwork,
    stock: nn.Module | None,
    folder: Path | str,
    *,
    tile: tuple[int, int],
    frames: int,
    channels: int = 1,
    mode: Mode = "routed",
    overlap: int | None = None,
    about: Mapping[str, Any] | None = None,
) -> Manifest:
    """Writes a network that reconstructs `frames` frames (of 3 `channels` from a Bayer mosaic) from a measurement.

    `stock` maps measurement (N,H,W), mask (N,T,H,W) and mask_sum (N,H,W) to (N,T,H,W), or (N,3,T,H,W). The runtime
    measures the gradient of a measurement where there are routes. Other arguments and errors are `export_upscaler`'s;
    a tile must be the larger, the larger the power of 2 up to 8 that both its sides are multiples of, as its tiles then
    begin at such multiples.
    """
    signature = VideoSignature(tile, network.value_range, frames, channels)
    return export(network, stock, folder, signature, mode=mode, overlap=overlap, about=about)


#: a video network with fewer bits is computed in f32 between its integer layers: bf16, a tenth faster, moved those of 4 bits
#: by -0.14 to 0.07 dB, and cost one of 3 bits 0.4
_BITS_FOR_BF16 = 5


def export(
    network: QuantizedNetwork,
    stock: nn.Module | None,
    folder: Path | str,
    signature: Signature,
    *,
    mode: Mode,
    overlap: int | None = None,
    about: Mapping[str, Any] | None = None,
) -> Manifest:
    """Writes the folder of any network; the functions above say what the modes mean, and what is raised."""
    check_exportable(network)
    overlap = DEFAULT_OVERLAP if overlap is None else overlap
    for side in signature.tile:
        check_tile(side, overlap, multiple=signature.period())
    thresholds = network.thresholds() if mode == "routed" else None
    factors = (0,) if thresholds is None else FACTORS
    models: dict[str, openvino.Model] = {}
    names: dict[int, str] = {}
    seen: dict[tuple[Any, ...], str] = {}
    dynamic, exact = False, True
    for factor in sorted(factors, key=abs):
        lowered = lower(stock, network, None if mode == "dynamic" else factor, report_bits=True)
        dynamic |= any(isinstance(module, DynamicLayer) for module in lowered.modules())
        exact &= is_exact_everywhere(lowered)
        names[factor] = seen.setdefault(_constants(lowered), _ROUTE_NAMES[factor] if thresholds else "model")
        if names[factor] not in models:
            models[names[factor]] = signature.with_ports(convert_like(lowered, signature.examples()))
    graphs, constants = pack(models)
    entries, weights, files = name_files(graphs, constants)
    weight_bits = _weight_bits(network)
    few = signature.task == "sci" and min(weight_bits.values(), default=8.0) < _BITS_FOR_BF16
    manifest = Manifest(
        **signature.for_manifest(),
        overlap=overlap,
        weights=weights,
        routes=tuple(_route(network, factor, entries[names[factor]], mode == "dynamic") for factor in factors),
        thresholds=thresholds,
        weight_bits=weight_bits,
        precision="f32" if few else "image_only" if dynamic else "auto",
        exact_on="all" if exact else "vnni",
        about={"openvino": openvino.get_version(), "scheme": network.scheme.config.name, **(about or {})},
    )
    write_folder(folder, manifest, files)
    return manifest


def _constants(lowered: nn.Module) -> tuple[Any, ...]:
    """What tells two lowered copies of one network apart."""
    grids = [
        grid
        for module in lowered.modules()
        if isinstance(module, StaticLayer | DynamicLayer | Operand)
        for grid in (getattr(module, "grid", None), getattr(module, "output", None))
    ]
    return tuple(None if grid is None else (grid.step, grid.low, grid.high) for grid in grids)


def _route(network: QuantizedNetwork, factor: int, graph: StoredFile, most: bool) -> Route:
    bits = layer_bits(network, max(FACTORS) if most else factor)
    counted = [bits[name] for name, layer in network.layers.items() if layer.counted and name in bits]
    return Route(factor, graph, bits, sum(counted) / len(counted) if counted else 32.0)


@torch.no_grad()
def _weight_bits(network: QuantizedNetwork) -> dict[str, float]:
    return {
        name: layer.weight.qparams(network.model.get_submodule(name).weight).bit_width.max().item()  # type: ignore[arg-type]
        for name, layer in network.layers.items()
        if layer.weight is not None
    }

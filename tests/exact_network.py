"""An exact nearest-neighbour enlarger as a W8A8 model folder: every output pixel is known. Needs no torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openvino
from openvino import Type
from openvino import opset13 as ops

from qsci_plugins.openvino.folder import write_folder
from qsci_plugins.openvino.ir import pack, with_image_ports
from qsci_plugins.openvino.manifest import Manifest, Route, StoredFile, stored

__all__ = ["exact_upscaler", "nearest"]


def exact_upscaler(folder: Path, tile: tuple[int, int] = (32, 40), scale: int = 2) -> Path:
    """Writes a network of one 3x3 convolution on 8-bit integers whose output is `nearest` of its input, and returns `folder`."""
    model = with_image_ports(_network(tile, scale), 255.0)
    graphs, constants = pack({"model": model})
    graph, weights = _named("model", "xml", graphs["model"]), _named("weights", "bin", constants)
    manifest = Manifest(
        scale=scale,
        tile=tile,
        overlap=1,
        value_range=255.0,
        weights=weights,
        routes=(Route(0, graph, {"conv": 8.0}, 8.0),),
        weight_bits={"conv": 8.0},
    )
    write_folder(folder, manifest, {graph.name: graphs["model"], weights.name: constants})
    return folder


def nearest(image: np.ndarray, scale: int = 2) -> np.ndarray:
    """Every pixel of (H,W,...) as scale x scale of them."""
    return image.repeat(scale, 0).repeat(scale, 1)


def _network(tile: tuple[int, int], scale: int) -> openvino.Model:
    image = ops.parameter([1, 3, *tile], Type.f32, name="image")
    low, high = ops.constant(np.float32(0)), ops.constant(np.float32(255))
    levels = ops.fake_quantize(image, low, high, low, high, 256)
    # depth to space wants channel c's scale^2 copies beside each other
    weights = np.zeros((3 * scale**2, 3, 3, 3), np.int8)
    for output in range(len(weights)):
        weights[output, output // scale**2, 1, 1] = 1
    filled = ops.convert(ops.constant(weights), Type.f32)
    step = ops.constant(np.ones((len(weights), 1, 1, 1), np.float32))
    convolved = ops.convolution(levels, ops.multiply(filled, step), [1, 1], [1, 1], [1, 1], [1, 1])
    return openvino.Model([ops.depth_to_space(convolved, "depth_first", scale)], [image], "network")


def _named(name: str, suffix: str, content: bytes) -> StoredFile:
    return stored(f"{name}-{stored(name, content).sha256[:12]}.{suffix}", content)

"""Graphs of a network that enlarges images which are not ours: kept in a folder, and run on images of any size."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import torch

from qsci_plugins.comparing.contenders import Contender, Makers
from qsci_plugins.evaluation.baselines import (
    TiledGraph,
    default_int8_graph,
    float_graph,
    inference,
    tile_samples,
)
from qsci_plugins.evaluation.bit_meter import ImageForm
from qsci_plugins.evaluation.latency import open_graph
from qsci_plugins.openvino.manifest import Manifest
from qsci_plugins.openvino.precisions import Precision
from qsci_plugins.openvino.signature import Signature
from qsci_plugins.openvino.tiling import Image
from qsci_plugins.pipeline.task import Loaded, Prepared
from qsci_plugins.progress import quiet
from qsci_plugins.schemes.scheme import QuantizedNetwork

__all__ = ["make_default_int8", "onnx_contenders", "plain_form", "run_routed", "write_plain"]

_ONNX = ("onnxruntime", "static INT8, QCDQ in onnxruntime")


def make_default_int8(prepared: Prepared) -> openvino.Model:
    """NNCF's default INT8 of the float network at the recipe's tile, calibrated on patches of the recipe's size."""
    network, recipe = prepared.float_network, prepared.recipe
    height, width = recipe.export.openvino.tile
    patch = recipe.calibrate.patch
    patches = [patch for batch in prepared.batches for patch in batch]

    def at(size: tuple[int, int]) -> openvino.Model:
        return default_int8_graph(float_graph(network, size), tile_samples(patches, size))

    graph = at((patch, patch))
    try:
        graph.reshape([1, network.channels, height, width])
    except RuntimeError:  # a network whose course depends on its input's size: patches are mirrored up to the tile
        return at((height, width))
    return graph


def write_plain(graph: openvino.Model, folder: Path, signature: Signature, overlap: int) -> None:
    """An IR file in `folder`, which says nothing of how tiles are to overlap."""
    folder.mkdir(parents=True, exist_ok=True)
    openvino.save_model(graph, folder / "model.xml", compress_to_fp16=False)


def plain_form(folder: Path, loaded: Loaded, overlap: int, threads: int, precision: Precision) -> ImageForm:
    """What `write_plain` wrote, in tiles that are joined as our own runtime does."""
    height, width = loaded.recipe.export.openvino.tile
    compiled = open_graph(folder / "model.xml", precision=precision, threads=threads, exact=False)
    return ImageForm(TiledGraph(inference(compiled), loaded.float_network, (height, width), overlap).upscale)


def run_routed(form: ImageForm, manifest: Manifest) -> Callable[[], object]:
    """Enlarges one image of the size of a tile, which chooses its route."""
    image = _noise(manifest.tile)
    return lambda: form.upscale(image)


def onnx_contenders(
    prepared: Prepared, overlap: int, quantize: Callable[[str], QuantizedNetwork], folder: Path, threads: int
) -> Makers:
    """By name and title: the static network through Brevitas as QCDQ ONNX, where onnxruntime is installed.

    `quantize` makes the static network through the backend that it is given.
    """
    if not all(find_spec(name) for name in ("onnxruntime", "onnxscript", "onnxoptimizer")):
        return {}
    return {_ONNX: lambda: _onnxruntime(prepared, overlap, quantize("brevitas"), folder / "static.onnx", threads)}


def _onnxruntime(prepared: Prepared, overlap: int, quantized: QuantizedNetwork, file: Path, threads: int) -> Contender:
    import onnxruntime

    from qsci_plugins.brevitas.onnx import export_qcdq

    network = prepared.float_network
    height, width = prepared.recipe.export.openvino.tile
    with quiet():
        export_qcdq(quantized, file, torch.zeros(1, network.channels, height, width))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def infer(image: np.ndarray) -> np.ndarray:
        output: np.ndarray = session.run(None, {name: image})[0]
        return output

    noise: Any = _noise((height, width)).transpose(2, 0, 1)[None].astype(np.float32)
    noise *= np.float32(network.value_range / 255)
    form = ImageForm(TiledGraph(infer, network, (height, width), overlap).upscale)
    return Contender(*_ONNX, lambda: infer(noise), form, files=[file])


def _noise(tile: tuple[int, int]) -> Image:
    return np.random.default_rng(0).integers(0, 256, (*tile, 3), dtype=np.uint8)

"""The ways to run a network that enlarges images."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import openvino
import torch
from torch import Tensor

from qsci_plugins.architectures.network import Network
from qsci_plugins.comparing.contenders import (
    STATIC,
    TORCH,
    Contender,
    attempt_contender,
    exported_graph,
    static_network,
)
from qsci_plugins.evaluation.baselines import (
    Failed,
    PlainGraph,
    TiledGraph,
    float_graph,
    inference,
    plain_graphs,
    tile_samples,
)
from qsci_plugins.evaluation.latency import open_graph
from qsci_plugins.evaluation.torch_networks import torch_upscaler
from qsci_plugins.openvino.manifest import Manifest, load_manifest
from qsci_plugins.openvino.runtime import Upscaler
from qsci_plugins.openvino.tiling import Image
from qsci_plugins.pipeline.image_prepare import Prepared
from qsci_plugins.progress import quiet

__all__ = ["ImageContender", "exported_images", "plain_images"]

#: uint8 (h,w,3) to uint8 (scale*h,scale*w,3)
Upscale = Callable[[Image], Image]

ImageContender = Contender[Upscale]

_ONNX = ("onnxruntime", "static INT8, QCDQ in onnxruntime")


def exported_images(folder: Path, threads: int, seconds: float | None = None) -> list[ImageContender]:
    """A model folder: the graph of its middle route alone and, where there are routes, with choosing among them."""
    manifest = load_manifest(folder)
    upscaler = Upscaler(folder, threads=threads, precision="auto")
    alone: ImageContender = exported_graph("ours", "ours", folder, upscaler.upscale, threads, seconds=seconds)
    if manifest.thresholds is None:
        return [alone]
    image = _noise(manifest.tile)
    routed: ImageContender = Contender(
        "routed",
        "ours, with routing",
        lambda: upscaler.upscale(image),
        upscaler.upscale,
        files=alone.files,
        seconds=seconds,
    )
    return [alone, routed]


def plain_images(prepared: Prepared, manifest: Manifest, folder: Path, threads: int) -> list[ImageContender | Failed]:
    """What there is without us, written to `folder`: OpenVINO fp32 and bf16, NNCF's default INT8, torch; and static INT8
    at the recipe's placement, which is ours without anything that adapts, in OpenVINO and (if installed) onnxruntime.
    What fails on the network says why.
    """
    network, tile = prepared.network, manifest.tile

    def row(name: str, title: str, make: Callable[[], ImageContender]) -> ImageContender | Failed:
        return attempt_contender(name, title, make, tile)

    graphs = plain_graphs(lambda: float_graph(network, tile), tile_samples(prepared.patches, tile))
    rows: list[ImageContender | Failed] = [
        one
        if isinstance(one, Failed)
        else row(one.name, one.title, partial(_graph, one, folder, network, manifest, threads))
        for one in graphs
    ]
    rows.append(row(*STATIC, lambda: _static(prepared, manifest, folder / "static", threads)))
    if all(find_spec(name) for name in ("onnxruntime", "onnxscript", "onnxoptimizer")):
        rows.append(row(*_ONNX, lambda: _onnxruntime(prepared, manifest, folder / "static.onnx", threads)))
    rows.append(row(*TORCH, lambda: _torch(network, tile)))
    return rows


def _graph(plain: PlainGraph, folder: Path, network: Network, manifest: Manifest, threads: int) -> ImageContender:
    file = folder / f"{plain.name}.xml"
    openvino.save_model(plain.graph, file, compress_to_fp16=False)
    compiled = open_graph(file, precision=plain.precision, threads=threads)
    upscale = TiledGraph(inference(compiled), network, manifest.tile, manifest.overlap).upscale
    files = [file, file.with_suffix(".bin")]
    return Contender(plain.name, plain.title, compiled, upscale, file, None, plain.precision, files, plain.seconds)


def _static(prepared: Prepared, manifest: Manifest, folder: Path, threads: int) -> ImageContender:
    from qsci_plugins.openvino.export import export_upscaler

    network = prepared.network
    quantized = static_network(prepared, prepared.recipe.backend)
    start = time.perf_counter()
    export_upscaler(
        quantized,
        network.module,
        folder,
        tile=manifest.tile,
        scale=network.scale,
        overlap=manifest.overlap,
        mode="static",
    )
    seconds = time.perf_counter() - start
    way = Upscaler(folder, threads=threads, precision="auto").upscale
    return exported_graph(*STATIC, folder, way, threads, seconds=seconds)


def _onnxruntime(prepared: Prepared, manifest: Manifest, file: Path, threads: int) -> ImageContender:
    """The static network through Brevitas as QCDQ ONNX, one tile at a time."""
    import onnxruntime

    from qsci_plugins.brevitas.onnx import export_qcdq

    network, tile = prepared.network, manifest.tile
    example = torch.zeros(1, network.channels, *tile)
    with quiet():
        export_qcdq(static_network(prepared, "brevitas"), file, example)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def infer(image: np.ndarray) -> np.ndarray:
        output: np.ndarray = session.run(None, {name: image})[0]
        return output

    noise = _noise(tile).transpose(2, 0, 1)[None].astype(np.float32) * np.float32(network.value_range / 255)
    upscale = TiledGraph(infer, network, tile, manifest.overlap).upscale
    return Contender(*_ONNX, lambda: infer(noise), upscale, files=[file])


def _torch(network: Network, tile: tuple[int, int]) -> ImageContender:
    example: Tensor = torch.from_numpy(_noise(tile)).permute(2, 0, 1)[None].float() * (network.value_range / 255)

    @torch.no_grad()
    def run() -> Tensor:
        output: Tensor = network.module(example)
        return output

    upscale = torch_upscaler(network.module, network.value_range, network.scale, network.size_multiple)
    return Contender(*TORCH, run, upscale)


def _noise(tile: tuple[int, int]) -> Image:
    return np.random.default_rng(0).integers(0, 256, (*tile, 3), dtype=np.uint8)

"""Every way to run one network that `qsci bench` compares, each as a file on disk, a tile to time and images to score."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import openvino
import torch
from torch import Tensor

from qsci_plugins.architectures.network import Network
from qsci_plugins.openvino.latency import has_bf16, open_graph
from qsci_plugins.openvino.manifest import Manifest, load_manifest
from qsci_plugins.openvino.precisions import Precision
from qsci_plugins.openvino.runtime import Upscaler
from qsci_plugins.openvino.tiling import Image
from qsci_plugins.recipes.baselines import TiledGraph, default_int8_graph, float_graph, inference, quiet
from qsci_plugins.recipes.benchmarks import torch_upscaler
from qsci_plugins.recipes.prepare import Prepared
from qsci_plugins.recipes.steps import backend
from qsci_plugins.schemes.registry import make_scheme
from qsci_plugins.schemes.scheme import QuantizedNetwork

__all__ = ["Contender", "exported_contenders", "plain_contenders"]


@dataclass(frozen=True)
class Contender:
    """A row of the bench: IR files (none for torch), what runs one tile, and what enlarges an image of any size."""

    name: str
    title: str
    tile: Callable[[], object] | openvino.CompiledModel
    upscale: Callable[[Image], Image]
    graph: Path | None = None
    weights: Path | None = None
    precision: Precision = "f32"
    files: list[Path] = field(default_factory=list)

    @property
    def file_bytes(self) -> int | None:
        """What the model takes on disk; None for torch."""
        return sum(file.stat().st_size for file in self.files) if self.files else None

    def throughput(self, threads: int) -> openvino.CompiledModel | None:
        """Compiled for throughput; None for torch."""
        if self.graph is None:
            return None
        return open_graph(self.graph, self.weights, precision=self.precision, threads=threads, hint="THROUGHPUT")


def exported_contenders(folder: Path, threads: int) -> list[Contender]:
    """A model folder: the graph of its middle route alone and, where there are routes, with choosing among them."""
    manifest = load_manifest(folder)
    graph, weights = folder / manifest.route(0).graph.name, folder / manifest.weights.name
    upscaler = Upscaler(folder, threads=threads, precision="auto")
    files = [folder / entry.name for entry in manifest.files()]
    alone = Contender(
        "ours",
        "ours",
        open_graph(graph, weights, precision=manifest.precision, threads=threads),
        upscaler.upscale,
        graph,
        weights,
        manifest.precision,
        files,
    )
    if manifest.thresholds is None:
        return [alone]
    image = _noise(manifest.tile)
    routed = Contender("routed", "ours, with routing", lambda: upscaler.upscale(image), upscaler.upscale, files=files)
    return [alone, routed]


def plain_contenders(prepared: Prepared, manifest: Manifest, folder: Path, threads: int) -> list[Contender]:
    """What there is without us, written to `folder`: OpenVINO fp32 and bf16, NNCF's default INT8, torch; and static INT8
    at the recipe's placement, which is ours without anything that adapts, in OpenVINO and (if installed) onnxruntime.
    """
    network, tile = prepared.network, manifest.tile
    plain = _saved(float_graph(network, tile), folder / "fp32.xml")
    rows = [_graph("fp32", "OpenVINO fp32", plain, network, manifest, threads, "f32")]
    if has_bf16():
        rows.append(_graph("bf16", "OpenVINO bf16", plain, network, manifest, threads, "bf16"))
    nncf = _saved(default_int8_graph(network, tile, prepared.patches), folder / "nncf.xml")
    rows.append(_graph("nncf_int8", "NNCF default INT8", nncf, network, manifest, threads, "f32"))
    rows.append(_static(prepared, manifest, folder / "static", threads))
    if all(find_spec(name) for name in ("onnxruntime", "onnxscript", "onnxoptimizer")):
        rows.append(_onnxruntime(prepared, manifest, folder / "static.onnx", threads))
    rows.append(_torch(network, tile))
    return rows


def _graph(
    name: str, title: str, file: Path, network: Network, manifest: Manifest, threads: int, precision: Precision
) -> Contender:
    compiled = open_graph(file, precision=precision, threads=threads)
    upscale = TiledGraph(inference(compiled), network, manifest.tile, manifest.overlap).upscale
    return Contender(name, title, compiled, upscale, file, None, precision, [file, file.with_suffix(".bin")])


def _static(prepared: Prepared, manifest: Manifest, folder: Path, threads: int) -> Contender:
    from qsci_plugins.openvino.export import export_upscaler

    network = prepared.network
    export_upscaler(
        _static_network(prepared, prepared.recipe.backend),
        network.module,
        folder,
        tile=manifest.tile,
        scale=network.scale,
        overlap=manifest.overlap,
        mode="static",
    )
    (ours,) = exported_contenders(folder, threads)
    return replace(ours, name="static_int8", title="static INT8, same placement")


def _static_network(prepared: Prepared, door: str) -> QuantizedNetwork:
    """W8A8 at the recipe's placement: nothing adapts, and no weight is reconstructed."""
    static = {"image_mapping": False, "layer_mapping": False, "reconstruct_weights": False, "bias_correction": False}
    scheme = make_scheme({"name": "adabm", "weight_bits": 8, "activation_bits": 8, **static})
    network = prepared.network
    with quiet():
        quantized: QuantizedNetwork = backend(door).quantize(
            network.module, scheme, prepared.placement, prepared.batches, network.value_range
        )
    return quantized


def _onnxruntime(prepared: Prepared, manifest: Manifest, file: Path, threads: int) -> Contender:
    """The static network through Brevitas as QCDQ ONNX, one tile at a time."""
    import onnxruntime

    from qsci_plugins.brevitas.onnx import export_qcdq

    network, tile = prepared.network, manifest.tile
    example = torch.zeros(1, network.channels, *tile)
    with quiet():
        export_qcdq(_static_network(prepared, "brevitas"), file, example)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def infer(image: np.ndarray) -> np.ndarray:
        output: np.ndarray = session.run(None, {name: image})[0]
        return output

    noise = _noise(tile).transpose(2, 0, 1)[None].astype(np.float32) * np.float32(network.value_range / 255)
    upscale = TiledGraph(infer, network, tile, manifest.overlap).upscale
    title = "static INT8, QCDQ in onnxruntime"
    return Contender("onnxruntime", title, lambda: infer(noise), upscale, files=[file])


def _torch(network: Network, tile: tuple[int, int]) -> Contender:
    example: Tensor = torch.from_numpy(_noise(tile)).permute(2, 0, 1)[None].float() * (network.value_range / 255)

    @torch.no_grad()
    def run() -> Tensor:
        output: Tensor = network.module(example)
        return output

    upscale = torch_upscaler(network.module, network.value_range, network.scale, network.size_multiple)
    return Contender("torch", "torch eager", run, upscale)


def _saved(graph: openvino.Model, file: Path) -> Path:
    openvino.save_model(graph, file, compress_to_fp16=False)
    return file


def _noise(tile: tuple[int, int]) -> Image:
    return np.random.default_rng(0).integers(0, 256, (*tile, 3), dtype=np.uint8)

"""Every way to run one network that `qsci bench` compares, each as files on disk, a tile to time and a form to score."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import openvino
import torch
from torch import Tensor

from qsci_plugins.comparing.time_limit import TimeLimitError, within
from qsci_plugins.errors import UserError
from qsci_plugins.evaluation.baselines import Failed, PlainGraph, attempt, once, plain_graph_makers
from qsci_plugins.evaluation.latency import open_graph, runner
from qsci_plugins.openvino.manifest import Manifest, load_manifest
from qsci_plugins.openvino.precisions import Precision
from qsci_plugins.openvino.signature import Signature
from qsci_plugins.pipeline.task import Loaded, Prepared, Task
from qsci_plugins.progress import quiet
from qsci_plugins.schemes.backend import load_backend
from qsci_plugins.schemes.placement import Placement, place
from qsci_plugins.schemes.scheme import QuantizedNetwork, Scheme
from qsci_plugins.schemes.shortcuts import WithShortcut

__all__ = [
    "Contender",
    "MakeContender",
    "Makers",
    "PlainGraphs",
    "exported_contenders",
    "make_contender",
    "plain_contenders",
    "plain_graphs_of",
    "static_contenders",
    "static_network",
    "stock_placement",
]

#: name and title of the rows that are ours, of the one without anything that adapts, and of torch's
_OURS = ("ours", "ours")
_ROUTED = ("routed", "ours, with routing")
_SKIPPING = ("skipping", "ours, smooth tiles, which skip blocks")
_STATIC = ("static_int8", "static INT8, same placement")
_TORCH = ("torch", "torch eager")


@dataclass(frozen=True)
class Contender:
    """A row of the bench: what runs one tile, IR files (none for torch), and the task's form, which is scored.

    `seconds` is what making the graph of the network in torch took, where that is known; `exact` is `open_graph`'s.
    """

    name: str
    title: str
    tile: Callable[[], object] | openvino.CompiledModel
    form: Any
    graph: Path | None = None
    weights: Path | None = None
    precision: Precision = "f32"
    files: list[Path] = field(default_factory=list)
    seconds: float | None = None
    exact: bool = True

    @property
    def file_bytes(self) -> int | None:
        """What the model takes on disk; None for torch."""
        return sum(file.stat().st_size for file in self.files) if self.files else None

    def throughput(self, threads: int) -> openvino.CompiledModel | None:
        """Compiled for throughput; None for torch."""
        if self.graph is None:
            return None
        return open_graph(
            self.graph, self.weights, precision=self.precision, threads=threads, hint="THROUGHPUT", exact=self.exact
        )


MakeContender = Callable[[], Contender]
#: by name and title
Makers = dict[tuple[str, str], MakeContender]


class PlainGraphs(Protocol):
    """What differs between the tasks where graphs are not ours: the modules `image_plain` and `video_plain`."""

    def make_default_int8(self, prepared: Prepared) -> openvino.Model:
        """NNCF's default INT8 of the float network at the recipe's tile, for its quality to be measured."""
        ...

    def write_plain(self, graph: openvino.Model, folder: Path, signature: Signature, overlap: int) -> None:
        """Puts model.xml and its weights into a folder."""
        ...

    def plain_form(self, folder: Path, loaded: Loaded, overlap: int, threads: int, precision: Precision) -> Any:
        """The graph in such a folder as a form of the task."""
        ...

    def run_routed(self, form: Any, manifest: Manifest) -> Callable[[], object]:
        """What runs a model folder on one input of the size of a tile, choosing its route."""
        ...

    def onnx_contenders(
        self,
        prepared: Prepared,
        overlap: int,
        quantize: Callable[[str], QuantizedNetwork],
        folder: Path,
        threads: int,
    ) -> Makers:
        """The static network in other runtimes."""
        ...


def plain_graphs_of(task: Task) -> PlainGraphs:
    """The module of a task."""
    name = {"sr": "image_plain", "sci": "video_plain"}[task.name]
    return importlib.import_module(f"qsci_plugins.comparing.{name}")  # type: ignore[return-value]


def exported_contenders(task: Task, folder: Path, threads: int, seconds: float | None = None) -> Makers:
    """A model folder: the graph of its middle route alone and, where there are routes, with choosing among them.

    Where the lowest route skips blocks, its graph too.
    """
    manifest = load_manifest(folder)
    opened = once(lambda: task.exported(folder, threads))
    makers: Makers = {_OURS: lambda: _of_folder(*_OURS, folder, opened(), threads, seconds)}
    if manifest.skips_layers():
        makers[_SKIPPING] = lambda: _of_folder(*_SKIPPING, folder, opened(), threads, seconds, factor=-1)
    if manifest.thresholds is not None:
        run = plain_graphs_of(task).run_routed
        files = _files(folder)
        makers[_ROUTED] = lambda: Contender(*_ROUTED, run(opened(), manifest), opened(), files=files, seconds=seconds)
    return makers


def plain_contenders(task: Task, prepared: Prepared, folder: Path, threads: int) -> Makers:
    """What there is without us, written to `folder`: OpenVINO fp32 and bf16, NNCF's default INT8, torch.

    All of the float network without shortcuts. And the scheme's static form at the recipe's placement, in OpenVINO and
    where possible elsewhere, unless that is what the recipe makes itself. Nothing is made before its maker is called.
    """
    graphs = plain_graph_makers(lambda: task.float_graph(prepared), lambda: task.samples(prepared, every=True))
    return {
        **{name: partial(_plain, task, graph, prepared, folder, threads) for name, graph in graphs.items()},
        **static_contenders(task, prepared, folder, threads),
        _TORCH: lambda: _torch(task, prepared),
    }


def static_contenders(task: Task, prepared: Prepared, folder: Path, threads: int) -> Makers:
    """The scheme's static form at the recipe's placement; no row where the recipe makes that itself.

    The maker raises UserError for a scheme without such a form.
    """
    static = prepared.scheme.static()
    if static is None:
        return {_STATIC: lambda: _no_static_form(prepared)}
    if prepared.scheme.is_same(static) and prepared.network.module is prepared.float_network.module:
        return {}
    quantize = partial(static_network, prepared, static)
    return {
        _STATIC: lambda: _static(task, prepared, quantize, folder / "static", threads),
        **plain_graphs_of(task).onnx_contenders(prepared, prepared.overlap, quantize, folder, threads),
    }


def make_contender(
    name: tuple[str, str],
    make: MakeContender,
    tile: tuple[int, int],
    limit: float | None = None,
    begin: Callable[[], object] = lambda: None,
) -> Contender | Failed:
    """A contender that has run a tile, or why there is none; for what is ours only that it exceeds the limit.

    Each of both, making it and its first inference, may take `limit` seconds; see `time_limit.within`. `begin` is called
    before each.
    """

    def make_and_run() -> Contender:
        begin()
        contender = within(limit, make)
        timed = contender.tile
        begin()
        within(limit, runner(timed, tile) if isinstance(timed, openvino.CompiledModel) else timed)
        return contender

    def make_in_time() -> Contender | Failed:
        try:
            return make_and_run()
        except TimeLimitError as error:
            return Failed(*name, str(error))

    return make_in_time() if name in (_OURS, _SKIPPING, _ROUTED) else attempt(*name, make_in_time)


def _no_static_form(prepared: Prepared) -> Contender:
    raise UserError(f"the scheme {prepared.scheme.config.name} has no static form")


def _plain(task: Task, make: Callable[[], PlainGraph], prepared: Prepared, folder: Path, threads: int) -> Contender:
    plain = make()
    graphs, own = plain_graphs_of(task), folder / plain.name
    graphs.write_plain(plain.graph, own, task.signature(prepared), prepared.overlap)
    form = graphs.plain_form(own, prepared, prepared.overlap, threads, plain.precision)
    graph = own / "model.xml"
    compiled = open_graph(graph, precision=plain.precision, threads=threads, exact=False)
    files = [graph, graph.with_suffix(".bin")]
    return Contender(
        plain.name, plain.title, compiled, form, graph, None, plain.precision, files, plain.seconds, exact=False
    )


def _of_folder(
    name: str, title: str, folder: Path, form: Any, threads: int, seconds: float | None, factor: int = 0
) -> Contender:
    """The graph of one of a model folder's routes."""
    manifest = load_manifest(folder)
    graph, weights = folder / manifest.route(factor).graph.name, folder / manifest.weights.name
    compiled = open_graph(graph, weights, precision=manifest.precision, threads=threads)
    return Contender(name, title, compiled, form, graph, weights, manifest.precision, _files(folder), seconds)


def _files(folder: Path) -> list[Path]:
    """A model folder's graphs, and their constants once: further names of theirs take no room."""
    manifest = load_manifest(folder)
    return [folder / entry.name for entry in (manifest.weights, *manifest.graphs())]


def _static(
    task: Task, prepared: Prepared, quantize: Callable[[str], QuantizedNetwork], folder: Path, threads: int
) -> Contender:
    from qsci_plugins.openvino.export import export

    quantized = quantize(prepared.recipe.backend)
    start = time.perf_counter()
    stock, signature = prepared.float_network.module, task.signature(prepared)
    export(quantized, stock, folder, signature, mode="static", overlap=prepared.overlap)
    seconds = time.perf_counter() - start
    return _of_folder(*_STATIC, folder, task.exported(folder, threads), threads, seconds)


def static_network(prepared: Prepared, static: Scheme, backend_name: str) -> QuantizedNetwork:
    """The float network with the static form of the recipe's scheme at its placement, through a backend."""
    network = prepared.float_network
    with quiet():
        return load_backend(backend_name).quantize(
            network.module, static, stock_placement(prepared), prepared.batches, network.value_range
        )


def stock_placement(prepared: Prepared) -> Placement:
    """The recipe's placement by the names of the float network, where a layer beside a shortcut has its own again."""
    module = prepared.network.module
    names: dict[str, list[str]] = {"scheme": [], "eight_bit": []}
    for name, precision in place(module, prepared.placement).items():
        parent, _, leaf = name.rpartition(".")
        beside = isinstance(module.get_submodule(parent), WithShortcut)
        if not (beside and leaf == "shortcut"):
            names[precision].append(parent if beside else name)
    return Placement(tuple(names["scheme"]), tuple(names["eight_bit"]))


def _torch(task: Task, prepared: Prepared) -> Contender:
    module, examples = prepared.float_network.module, task.signature(prepared).examples()

    @torch.no_grad()
    def run() -> Tensor:
        output: Tensor = module(*examples)
        return output

    return Contender(*_TORCH, run, task.forms(prepared, None, None)["float"])

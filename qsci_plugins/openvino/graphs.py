"""The graphs of a model folder, reshaped to a tile and compiled when first asked for."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple

import openvino
from openvino import Type

from qsci_plugins.openvino.compiling import compile_graph, openvino_errors, read_graph
from qsci_plugins.openvino.manifest import Manifest, StoredFile, read_stored
from qsci_plugins.openvino.precisions import Precision
from qsci_plugins.openvino.tiling import most_pixels

__all__ = ["Graphs", "Requests", "with_float_ports"]

_Size = tuple[int, int]


class _Key(NamedTuple):
    graph: StoredFile
    size: _Size
    #: several tiles at once
    many: bool
    #: float images in and out
    floats: bool


class Graphs:
    """Those of one manifest that enlarges images, for any number of threads.

    `config` is OpenVINO's; `precision` what `precisions.prepared` takes.
    """

    def __init__(
        self, folder: Path | str, manifest: Manifest, device: str, config: Mapping[str, Any], precision: Precision
    ) -> None:
        self.manifest = manifest
        self._folder = Path(folder)
        self._device = device
        self._config = config
        self._precision = precision
        self._core = openvino.Core()
        self._weights = read_stored(folder, manifest.weights)
        self._stored = {entry: read_stored(folder, entry) for entry in {r.graph for r in manifest.routes}}
        self.compiled: dict[_Key, Requests] = {}
        self._lock = threading.Lock()
        self._runnable = {manifest.tile: True}
        self._most_pixels: int | None = None

    def requests(self, factor: int, size: _Size, many: bool, floats: bool, keep: bool) -> Requests:
        """Those of a route's graph for tiles of `size`.

        Graphs of other sizes than this and the manifest's are dropped, and those of other routes give their memory back
        unless `keep`: a large tile's memory is needed once.
        """
        key = _Key(self.manifest.route(factor).graph, size, many, floats)
        with self._lock:
            # graphs of other sizes would pile up where every image has its own tile
            self.compiled = {
                other: found for other, found in self.compiled.items() if other.size in (size, self.manifest.tile)
            }
            if not keep:
                for other, found in self.compiled.items():
                    if other != key:
                        with suppress(RuntimeError):  # another thread is running it
                            found.model.release_memory()
            if key not in self.compiled:
                self.compiled[key] = self._compile(key)
            return self.compiled[key]

    def can_run(self, size: _Size) -> bool:
        """Whether the network runs on tiles of this size."""
        if size not in self._runnable:
            scale = self.manifest.scale
            model = self._model(self.manifest.routes[0].graph)
            try:
                model.reshape([1, *size, 3])
                found = model.output(0).partial_shape
                self._runnable[size] = found == openvino.PartialShape([1, *(scale * side for side in size), 3])
            except RuntimeError:
                self._runnable[size] = False
        return self._runnable[size]

    @property
    def most_pixels(self) -> int:
        """Input pixels of the largest tile that fits into the memory meant for one."""
        if self._most_pixels is None:
            tile = self.manifest.tile
            self._most_pixels = most_pixels(self._model(self.manifest.route(0).graph), tile)
        return self._most_pixels

    def _compile(self, key: _Key) -> Requests:
        model, file = self._model(key.graph), self._folder / key.graph.name
        settings = dict(self._config)
        precision = self._precision
        with openvino_errors(file):
            if key.size != self.manifest.tile:
                model.reshape([1, *key.size, 3])
            if key.floats:
                model = with_float_ports(model)
                precision = "f32"  # bf16 has 8 bits, as many as the integers that are to be surpassed
                if self._device == "CPU":
                    settings["INFERENCE_PRECISION_HINT"] = "f32"
            if not key.many:
                settings.pop("NUM_STREAMS", None)  # a tile alone has all threads
            hint: Literal["LATENCY", "THROUGHPUT"] = "THROUGHPUT" if key.many else "LATENCY"
            compiled = compile_graph(self._core, model, self._device, precision=precision, hint=hint, settings=settings)
            return Requests(compiled, file)

    def _model(self, entry: StoredFile) -> openvino.Model:
        return read_graph(self._core, self._folder / entry.name, self._stored[entry], self._weights, self.manifest)


def with_float_ports(model: openvino.Model) -> openvino.Model:
    """A graph of `ir.with_image_ports` that takes and gives float32 in 0..255, not rounded; it is changed in place.

    Raises ValueError for a graph of another kind.
    """
    parameter = model.get_parameters()[0]
    parameter.set_element_type(Type.f32)
    node = model.get_results()[0].input_value(0).get_node()
    rounding = None
    converting = None
    while node.get_type_name() in ("Transpose", "Convert", "Round"):
        if node.get_type_name() == "Convert":
            converting = node
        elif node.get_type_name() == "Round":
            rounding = node
            break
        node = node.input_value(0).get_node()
    if rounding is None or converting is None:
        raise ValueError("the graph does not round its output; it is not one of with_image_ports")
    converting.output(0).replace(rounding.input_value(0))
    model.validate_nodes_and_infer_types()
    return model


class Requests:
    """As many requests as the device is best at, lent to whichever thread needs one; `file` is what errors call the graph.

    Not OpenVINO's AsyncInferQueue: its callbacks take Python's lock in the device's threads, and a graph that is dropped
    a moment later waits for those threads with the lock held, for ever; and one queue has one callback.
    """

    def __init__(self, model: openvino.CompiledModel, file: Path | str) -> None:
        self.model = model
        self._file = file
        self.count = int(model.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
        self._idle: queue.SimpleQueue[openvino.InferRequest] = queue.SimpleQueue()
        for _ in range(self.count):
            self._idle.put(model.create_infer_request())

    def run(self, inputs: Iterable[Mapping[Any, Any]]) -> Iterator[openvino.InferRequest]:
        """The finished request of each of `inputs`, in their order; its results hold until the next one is asked for."""
        pending: deque[openvino.InferRequest] = deque()
        try:
            for given in inputs:
                request = self._take(wait=not pending)
                if request is None:  # all are busy, some of them for us
                    self._wait(pending[0])
                    yield pending[0]
                    request = pending.popleft()
                pending.append(request)
                with openvino_errors(self._file):
                    request.start_async(given)
            while pending:
                self._wait(pending[0])
                yield pending[0]
                self._idle.put(pending.popleft())
        finally:
            for request in pending:
                with suppress(RuntimeError):  # the one that is being reported already
                    request.wait()
                self._idle.put(request)

    def _wait(self, request: openvino.InferRequest) -> None:
        with openvino_errors(self._file):
            request.wait()

    def _take(self, wait: bool) -> openvino.InferRequest | None:
        try:
            return self._idle.get(block=wait)
        except queue.Empty:
            return None

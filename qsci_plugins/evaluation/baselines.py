"""What an OpenVINO user has without this package: the float graph, and NNCF's default INT8 of it."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
import openvino
from torch import Tensor

from qsci_plugins.architectures.network import Network
from qsci_plugins.errors import UserError
from qsci_plugins.openvino.convert import convert
from qsci_plugins.openvino.precisions import Precision, has_bf16
from qsci_plugins.openvino.tiling import DEFAULT_BLEND, Image, cut_tile, join, plan_axis
from qsci_plugins.progress import quiet

__all__ = [
    "Failed",
    "PlainGraph",
    "Sample",
    "TiledGraph",
    "attempt",
    "default_int8_graph",
    "float_graph",
    "inference",
    "once",
    "plain_graph_makers",
    "plain_graphs",
    "tile_samples",
]

#: what a graph takes: an array, or one for each of its inputs
Sample = np.ndarray | tuple[np.ndarray, ...]


def float_graph(network: Network, tile: tuple[int, int]) -> openvino.Model:
    """The float network as an OpenVINO model of one static tile (1,3,*tile)."""
    return convert(network.module, (1, network.channels, *tile), network.value_range, tuned=False)


@dataclass(frozen=True)
class PlainGraph:
    """A way to run the float network without us: a graph, the precision to compile it for, the seconds it took to make."""

    name: str
    title: str
    graph: openvino.Model
    precision: Precision
    seconds: float


def plain_graphs(convert: Callable[[], openvino.Model], samples: Sequence[Sample]) -> list[PlainGraph | Failed]:
    """OpenVINO's fp32, bf16 where the CPU has it, and NNCF's default INT8 calibrated on `samples`.

    `convert` makes the graph of the float network. What fails on it says why instead.
    """
    makers = plain_graph_makers(convert, lambda: samples)
    return [attempt(name, title, make) for (name, title), make in makers.items()]


def plain_graph_makers(
    convert: Callable[[], openvino.Model], samples: Callable[[], Sequence[Sample]]
) -> dict[tuple[str, str], Callable[[], PlainGraph]]:
    """By name and title what makes each of the graphs of `plain_graphs`; all share one conversion, made when needed."""
    kinds: dict[tuple[str, str], Precision] = {("fp32", "OpenVINO fp32"): "f32"}
    if has_bf16():
        kinds["bf16", "OpenVINO bf16"] = "bf16"
    default = ("nncf_int8", "NNCF default INT8")

    def convert_timed() -> tuple[openvino.Model, float]:
        start = time.perf_counter()
        return convert(), time.perf_counter() - start

    converted = once(convert_timed)

    def float_at(name: tuple[str, str], precision: Precision) -> PlainGraph:
        graph, seconds = converted()
        return PlainGraph(*name, graph, precision, seconds)

    def quantized() -> PlainGraph:
        graph, seconds = converted()
        start = time.perf_counter()
        result = default_int8_graph(graph, samples())
        return PlainGraph(*default, result, "f32", seconds + time.perf_counter() - start)

    return {**{name: partial(float_at, name, precision) for name, precision in kinds.items()}, default: quantized}


def default_int8_graph(graph: openvino.Model, samples: Sequence[Sample]) -> openvino.Model:
    """`nncf.quantize` without any setting on an OpenVINO model, which stays as it is; see `tile_samples`.

    On the OpenVINO side, because there NNCF needs no C++ compiler.
    """
    with quiet():
        import nncf

        return nncf.quantize(graph, nncf.Dataset(list(samples)), subset_size=len(samples))


def tile_samples(inputs: Iterable[Tensor], tile: tuple[int, int]) -> list[np.ndarray]:
    """Inputs (...,h,w), each as (1,...,*tile), for a graph of static shape to be calibrated on.

    Those of another size than the tile's are mirrored up to it, which changes nothing about the speed and little about
    the ranges.
    """
    return [_grown(tensor.numpy(), *tile)[None] for tensor in inputs]


def inference(compiled: openvino.CompiledModel) -> Callable[[np.ndarray], np.ndarray]:
    """A compiled model of one input and one output as a function."""
    request = compiled.create_infer_request()

    def infer(image: np.ndarray) -> np.ndarray:
        output: np.ndarray = next(iter(request.infer([image]).values()))
        return output

    return infer


class TiledGraph:
    """A graph of float images (1,3,*tile) on images of any size, tiled and joined as our own runtime does.

    `infer` maps (1,3,*tile) in 0..value_range to (1,3,scale*tile).
    """

    def __init__(
        self, infer: Callable[[np.ndarray], np.ndarray], network: Network, tile: tuple[int, int], overlap: int
    ) -> None:
        self._infer = infer
        self._gain = network.value_range / 255
        self._scale = network.scale
        self._tile = tile
        self._overlap = overlap

    def upscale(self, image: Image) -> Image:
        """uint8 (h,w,3) to uint8 (scale*h,scale*w,3)."""
        rows, columns = (
            plan_axis(length, size, self._overlap, DEFAULT_BLEND)
            for length, size in zip(image.shape, self._tile, strict=False)
        )
        lines = (
            np.concatenate(
                list(join((self._run(image, y, x) for x in columns.starts), columns, self._scale, 1)), axis=1
            )
            for y in rows.starts
        )
        return np.concatenate(list(join(lines, rows, self._scale, 0)))

    def _run(self, image: Image, y: int, x: int) -> Image:
        tile = cut_tile(image, y, x, *self._tile).transpose(2, 0, 1)[None].astype(np.float32) * self._gain
        output = self._infer(np.ascontiguousarray(tile))[0] / self._gain
        return np.rint(output.clip(0, 255)).astype(np.uint8).transpose(1, 2, 0)


def _grown(patch: np.ndarray, height: int, width: int) -> np.ndarray:
    missing = [(0, max(0, wanted - side)) for wanted, side in zip((height, width), patch.shape[-2:], strict=True)]
    grown = np.pad(patch, [(0, 0)] * (patch.ndim - 2) + missing, mode="reflect")
    return np.ascontiguousarray(grown[..., :height, :width])


Result = TypeVar("Result")

_LONGEST = 300


@dataclass(frozen=True)
class Failed:
    """A row by its name and title that could not be opened, and the reason in one line."""

    name: str
    title: str
    reason: str


def once(make: Callable[[], Result]) -> Callable[[], Result]:
    """Returns at every call what `make` returned at the first, or raises what it raised."""
    results: list[Result] = []
    errors: list[BaseException] = []

    def remembered() -> Result:
        if errors:
            raise errors[0]
        if not results:
            try:
                results.append(make())
            except BaseException as error:
                errors.append(error)
                raise
        return results[0]

    return remembered


def attempt(name: str, title: str, make: Callable[[], Result]) -> Result | Failed:
    """What `make` makes, or why it does not; for what others wrote, of which nobody knows what it may raise."""
    try:
        return make()
    except Exception as error:
        text = textwrap.shorten(str(error), _LONGEST, placeholder=" ...")
        kind = "" if text and isinstance(error, UserError) else type(error).__name__
        return Failed(name, title, ": ".join(part for part in (kind, text) if part))

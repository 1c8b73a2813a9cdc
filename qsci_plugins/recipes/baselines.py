"""What an OpenVINO user has without this package: the float graph, and NNCF's default INT8 of it."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator

import numpy as np
import openvino
from torch import Tensor

from qsci_plugins.architectures.network import Network
from qsci_plugins.openvino.convert import convert
from qsci_plugins.openvino.tiling import DEFAULT_BLEND, Image, cut_tile, join, plan_axis

__all__ = ["TiledGraph", "default_int8_graph", "float_graph", "inference", "quiet"]


def float_graph(network: Network, tile: tuple[int, int]) -> openvino.Model:
    """The float network as an OpenVINO model of one static tile (1,3,*tile)."""
    return convert(network.module, (1, network.channels, *tile), network.value_range, tuned=False)


def default_int8_graph(network: Network, tile: tuple[int, int], patches: Tensor) -> openvino.Model:
    """`nncf.quantize` without any setting on the OpenVINO model; `patches` (N,3,h,w) are inputs as the network takes.

    On the OpenVINO side, because there NNCF needs no C++ compiler. Patches of another size than the tile's are mirrored
    up to it, which changes nothing about the speed and little about the ranges.
    """
    height, width = tile
    samples = [_grown(patch.numpy(), height, width)[None] for patch in patches]
    with quiet():
        import nncf

        return nncf.quantize(float_graph(network, tile), nncf.Dataset(samples), subset_size=len(samples))


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


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps off our output what the toolkits print while they load and work: progress bars, remarks, warnings."""
    loggers = [logging.getLogger(name) for name in ("nncf", "torch.utils.cpp_extension")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _grown(patch: np.ndarray, height: int, width: int) -> np.ndarray:
    missing = (max(0, height - patch.shape[1]), max(0, width - patch.shape[2]))
    grown = np.pad(patch, ((0, 0), (0, missing[0]), (0, missing[1])), mode="reflect")
    return np.ascontiguousarray(grown[:, :height, :width])

"""Upscales images of any size with a model folder, tile by tile; needs openvino and numpy."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import openvino
from numpy.typing import NDArray

from qsci_plugins.errors import UserError
from qsci_plugins.openvino.compiling import compile_graph
from qsci_plugins.openvino.device_settings import device_settings
from qsci_plugins.openvino.gradient import route_factor, tile_gradient
from qsci_plugins.openvino.manifest import StoredFile, load_manifest, read_stored
from qsci_plugins.openvino.precisions import Precision, allowed
from qsci_plugins.openvino.tiling import (
    DEFAULT_BLEND,
    ROW_BYTES,
    Axis,
    check_tile,
    cut_tile,
    fit_tile,
    join,
    most_pixels,
    plan_axis,
)

__all__ = ["Precision", "Tile", "TileRoute", "Upscaler"]

Image = NDArray[np.uint8]
Progress = Callable[[int, int], None]

_Size = tuple[int, int]

#: height and width, or one chosen to each image
Tile = _Size | Literal["fit", "image"]

#: tiles measured and bucketed by route together, at least a row: more fill the threads better and hold more memory
_WINDOW = 32


@dataclass(frozen=True)
class TileRoute:
    """Where a tile lies in the input image, what was measured on it, and the route and mean bits it got."""

    y: int
    x: int
    height: int
    width: int
    gradient: float
    factor: int
    bits: float


#: a graph, its tile's height and width, and whether several tiles run at once
_Key = tuple[StoredFile, _Size, bool]


class _Compiled(NamedTuple):
    model: openvino.CompiledModel
    queue: openvino.AsyncInferQueue


class Upscaler:
    """A model folder, ready to run.

    `threads`, `streams`, `precision` and `cache_dir` are those of `device_settings`; streams are tiles that run at once,
    each in memory of its own, and change no pixel. `overlap`: context around a tile in input pixels, default the
    manifest's (the receptive radius, which makes tiled and untiled results equal).

    `tile`, default the manifest's: another (height, width); "image" for one tile per image, the whole; "fit" for the
    tiles that compute the fewest pixels twice within about 1 GiB (see `fitting`), which is faster for large images and
    compiles the graphs anew for images of another size. Routes, and bits chosen in the graph, follow each tile's own
    content: with another tile size they are others. Networks that cannot run at another size keep the one they were
    exported at.
    Raises UserError for a folder that `load_manifest` refuses, a network for video and a tile that is too small.

    With the run that the example of `qsci_plugins.run` makes:

    >>> import numpy as np
    >>> import qsci_plugins
    >>> upscaler = qsci_plugins.Upscaler("runs/tiny/model")
    >>> upscaler.upscale(np.zeros((32, 40, 3), np.uint8)).shape
    (64, 80, 3)
    """

    def __init__(
        self,
        folder: Path | str,
        device: str = "CPU",
        threads: int | None = None,
        precision: Precision | None = None,
        cache_dir: Path | str | None = None,
        overlap: int | None = None,
        tile: Tile | None = None,
        streams: int | None = None,
    ) -> None:
        self.manifest = load_manifest(folder)
        if self.manifest.task != "sr":
            raise UserError(f"{folder} reconstructs videos, it enlarges no images; give it to `qsci reconstruct`")
        self.scale = self.manifest.scale
        self.overlap = self.manifest.overlap if overlap is None else overlap
        self.tile: Tile = self.manifest.tile if tile is None else tile
        #: the tiles of the last image, row by row
        self.last_routes: list[TileRoute] = []
        self._device = device
        self._precision = allowed(precision, self.manifest.precision)
        self._core = openvino.Core()
        self._config = device_settings(
            self.manifest, device, threads=threads, streams=streams, precision=precision, cache_dir=cache_dir
        )
        self._weights = read_stored(folder, self.manifest.weights)
        self._graphs = {entry: read_stored(folder, entry) for entry in {r.graph for r in self.manifest.routes}}
        self._compiled: dict[_Key, _Compiled] = {}
        self._runnable = {self.manifest.tile: True}
        if not isinstance(self.tile, str):
            for size in self.tile:
                check_tile(size, self.overlap)

    def upscale(self, image: Image, progress: Progress | None = None) -> Image:
        """The RGB image (H,W,3) as (scale*H,scale*W,3). `progress(done, total)` is told about every tile.

        Raises UserError for anything but 8-bit RGB of at least one pixel.
        """
        result: Image | None = None
        done = 0
        for strip in self.strips(image, progress):
            if result is None:
                result = np.empty((image.shape[0] * self.scale, *strip.shape[1:]), np.uint8)
            result[done : done + len(strip)] = strip
            done += len(strip)
            del strip  # not to be held beside the next row of tiles
        assert result is not None
        return result

    def strips(self, image: Image, progress: Progress | None = None) -> Iterator[Image]:
        """The rows of the upscaled image, top to bottom, in strips (rows,scale*W,3), as they are finished.

        Memory beyond the image and the model is that of a few rows of tiles.
        """
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise UserError(f"the runtime takes 8-bit RGB images (H,W,3), got {image.dtype} {image.shape}")
        rows, columns = self.plan(image.shape[0], image.shape[1])
        self.last_routes = []
        yield from join(self._rows(image, rows, columns, progress or _ignore), rows, self.scale, 0)

    def plan(self, height: int, width: int) -> tuple[Axis, Axis]:
        """Where tiles lie in an image of this size, down and across."""
        tile = self._tile_for(height, width)
        rows, columns = (
            plan_axis(length, side, self.overlap, DEFAULT_BLEND)
            for length, side in zip((height, width), tile, strict=True)
        )
        return rows, columns

    def _rows(self, image: Image, rows: Axis, columns: Axis, progress: Progress) -> Iterator[Image]:
        """Each row of tiles, joined along its columns."""
        total, size = len(rows.starts) * len(columns.starts), (rows.tile, columns.tile)
        # fitted tiles are large, and one of them fills the threads
        most = int(self._config.get("NUM_STREAMS", 1)) if self._is_fitted(size) else _WINDOW
        alone = total == 1 or (self._is_fitted(size) and "NUM_STREAMS" not in self._config)
        together = max(1, most // len(columns.starts))
        for first in range(0, len(rows.starts), together):
            window = [(y, x) for y in rows.starts[first : first + together] for x in columns.starts]
            tiles = iter(self._run(image, window, size, not alone, total, progress))
            for _ in range(len(window) // len(columns.starts)):
                row = itertools.islice(tiles, len(columns.starts))
                yield np.concatenate(list(join(row, columns, self.scale, 1)), axis=1)
            del tiles, row

    def _run(
        self, image: Image, places: list[_Size], size: _Size, many: bool, total: int, progress: Progress
    ) -> list[Image]:
        """The upscaled tiles at `places`; those of one route run together, several at once where `many`."""
        before = len(self.last_routes)
        routes = [self._measure(image, y, x, *size) for y, x in places]
        self.last_routes += routes
        results: list[Image | None] = [None] * len(places)
        lock = threading.Lock()
        finished = 0

        def keep(request: openvino.InferRequest, index: int) -> None:
            nonlocal finished
            results[index] = request.get_output_tensor(0).data[0].copy()
            if len(request.model_outputs) > 1:
                # the graph chose its bits itself, and tells them
                chosen = float(request.get_output_tensor(1).data[0])
                self.last_routes[before + index] = replace(routes[index], bits=chosen)
            with lock:
                finished += 1
                progress(before + finished, total)

        for factor in sorted({route.factor for route in routes}):
            bucket = [index for index, route in enumerate(routes) if route.factor == factor]
            queue = self._queue(factor, size, many)
            queue.set_callback(keep)
            for index in bucket:
                queue.start_async({0: cut_tile(image, *places[index], *size)[None]}, index)
            queue.wait_all()
        return [result for result in results if result is not None]

    def _measure(self, image: Image, y: int, x: int, height: int, width: int) -> TileRoute:
        tile = image[y : y + height, x : x + width]
        thresholds = self.manifest.thresholds
        gradient, factor = 0.0, 0
        if thresholds is not None:
            gradient = tile_gradient(tile)
            factor = route_factor(gradient, *thresholds)
        return TileRoute(y, x, tile.shape[0], tile.shape[1], gradient, factor, self.manifest.route(factor).fab)

    def _queue(self, factor: int, size: tuple[int, int], many: bool) -> openvino.AsyncInferQueue:
        """The requests of a route's compiled graph; compiled when first asked for."""
        entry = self.manifest.route(factor).graph
        key = (entry, size, many)
        # graphs of other sizes would pile up where every image has its own tile
        self._compiled = {other: one for other, one in self._compiled.items() if other[1] in (size, self.manifest.tile)}
        if not many or self._is_fitted(size):
            # a large tile's memory is needed once, not by every route
            for other, one in self._compiled.items():
                if other != key:
                    one.model.release_memory()
        if key not in self._compiled:
            model = self._model(entry, size)
            settings = dict(self._config)
            if not many:
                settings.pop("NUM_STREAMS", None)  # a tile alone has all threads
            compiled = compile_graph(
                self._core,
                model,
                self._device,
                precision=self._precision,
                hint="THROUGHPUT" if many else "LATENCY",
                settings=settings,
            )
            self._compiled[key] = _Compiled(compiled, openvino.AsyncInferQueue(compiled))
        return self._compiled[key].queue

    def _tile_for(self, height: int, width: int) -> tuple[int, int]:
        """The tile size for an image: no larger than the image, so that its border is where the network expects it.

        A network that is bound to the size it was exported at gets that one, and the image is mirrored up to it.
        """
        fixed = self.manifest.tile
        if self.tile == "image":
            tile = (height, width)
        elif self.tile == "fit":
            in_row = ROW_BYTES // (3 * self.scale**2)
            tile = fit_tile(height, width, self.overlap, self._most_pixels, in_row) or fixed
        else:
            tile = self.tile
        wanted = (min(height, tile[0]), min(width, tile[1]))
        return wanted if self._can_run(wanted) else fixed

    def _is_fitted(self, size: _Size) -> bool:
        return self.tile == "fit" and size != self.manifest.tile

    @cached_property
    def _most_pixels(self) -> int:
        return most_pixels(self._model(self.manifest.route(0).graph, self.manifest.tile), self.manifest.tile)

    def _can_run(self, size: tuple[int, int]) -> bool:
        if size not in self._runnable:
            try:
                found = self._model(self.manifest.routes[0].graph, size).output(0).partial_shape
                self._runnable[size] = found == openvino.PartialShape([1, *(self.scale * side for side in size), 3])
            except RuntimeError:
                self._runnable[size] = False
        return self._runnable[size]

    def _model(self, entry: StoredFile, size: tuple[int, int]) -> openvino.Model:
        model = self._core.read_model(self._graphs[entry], self._weights)
        if size != self.manifest.tile:
            model.reshape([1, *size, 3])
        return model


def _ignore(done: int, total: int) -> None:
    pass

"""Upscales images of any size with a model folder, tile by tile; needs openvino and numpy."""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from qsci_plugins.errors import UserError
from qsci_plugins.openvino.compiling import device_settings
from qsci_plugins.openvino.gradient import route_factor, tile_gradient
from qsci_plugins.openvino.graphs import Graphs
from qsci_plugins.openvino.manifest import load_manifest
from qsci_plugins.openvino.precisions import Precision, allowed
from qsci_plugins.openvino.tiling import (
    DEFAULT_BLEND,
    ROW_BYTES,
    Axis,
    check_tile,
    cut_tile,
    fit_tile,
    join,
    plan_axis,
)

__all__ = ["Precision", "Tile", "TileRoute", "Upscaler"]

#: uint8, or float32 of the same 0..255
Image = NDArray[Any]
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


class Upscaler:
    """A model folder, ready to run.

    `threads`, `streams`, `precision` and `cache_dir` are those of `device_settings`; streams are tiles that run at once,
    each in memory of its own, and change no pixel. `overlap`: context around a tile in input pixels, default the
    manifest's (the receptive radius, which makes tiled and untiled results equal).

    `tile`, default the manifest's: another (height, width); "image" for one tile per image, the whole; "fit" for the
    tiles that compute the fewest pixels twice within about 1 GiB (see `fitting`), which is faster for large images and
    compiles the graphs anew for images of another size; of a network that skips blocks in smooth tiles they have at
    most the manifest's pixels. Routes, and bits chosen in the graph, follow each tile's own
    content: with another tile size they are others. Networks that cannot run at another size keep the one they were
    exported at.

    Several threads may use one at the same time: their tiles share its requests, and each gets what it would get alone.
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
        self._config = device_settings(
            self.manifest, device, threads=threads, streams=streams, precision=precision, cache_dir=cache_dir
        )
        self._graphs = Graphs(folder, self.manifest, device, self._config, allowed(precision, self.manifest.precision))
        self._last = threading.local()
        if not isinstance(self.tile, str):
            for size in self.tile:
                check_tile(size, self.overlap, multiple=self.manifest.period)

    @property
    def last_routes(self) -> list[TileRoute]:
        """The tiles of the image that this thread enlarged last, row by row."""
        routes: list[TileRoute] = getattr(self._last, "routes", [])
        return routes

    def upscale(self, image: Image, progress: Progress | None = None, *, as_float: bool = False) -> Image:
        """The RGB image (H,W,3) as (scale*H,scale*W,3). `progress(done, total)` is called after every tile.

        `as_float` gives the network's own values, float32 in 0..255, before they are rounded, computed in f32; the
        image may then be float32 in 0..255 too. Raises UserError for anything but RGB of at least one pixel.
        """
        result: Image | None = None
        done = 0
        for strip in self.strips(image, progress, as_float=as_float):
            if result is None:
                result = np.empty((image.shape[0] * self.scale, *strip.shape[1:]), strip.dtype)
            result[done : done + len(strip)] = strip
            done += len(strip)
            del strip  # not to be held beside the next row of tiles
        assert result is not None
        return result

    def strips(self, image: Image, progress: Progress | None = None, *, as_float: bool = False) -> Iterator[Image]:
        """The rows of the upscaled image, top to bottom, in strips (rows,scale*W,3), as they are finished.

        Memory beyond the image and the model is that of a few rows of tiles. Arguments as of `upscale`.
        """
        if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape or image.dtype not in _types(as_float):
            raise UserError(f"the runtime takes 8-bit RGB images (H,W,3), got {image.dtype} {image.shape}")
        rows, columns = self.plan(image.shape[0], image.shape[1])
        routes = self._last.routes = []
        yield from join(self._rows(image, rows, columns, progress or _ignore, as_float, routes), rows, self.scale, 0)

    def plan(self, height: int, width: int) -> tuple[Axis, Axis]:
        """Where tiles lie in an image of this size, down and across."""
        tile = self._tile_for(height, width)
        rows, columns = (
            plan_axis(length, side, self.overlap, DEFAULT_BLEND, self.manifest.period)
            for length, side in zip((height, width), tile, strict=True)
        )
        return rows, columns

    def _rows(
        self, image: Image, rows: Axis, columns: Axis, progress: Progress, floats: bool, routes: list[TileRoute]
    ) -> Iterator[Image]:
        """Each row of tiles, joined along its columns; appends to `routes`."""
        total, size = len(rows.starts) * len(columns.starts), (rows.tile, columns.tile)
        # fitted tiles are large, and one of them fills the threads
        most = int(self._config.get("NUM_STREAMS", 1)) if self._is_fitted(size) else _WINDOW
        alone = total == 1 or (self._is_fitted(size) and "NUM_STREAMS" not in self._config)
        together = max(1, most // len(columns.starts))

        def set_bits(index: int, bits: float) -> None:
            routes[index] = replace(routes[index], bits=bits)

        for first in range(0, len(rows.starts), together):
            window = [
                self._measure(image, y, x, *size) for y in rows.starts[first : first + together] for x in columns.starts
            ]

            def on_tile(finished: int, index: int, bits: float | None, place: int = len(routes)) -> None:
                if bits is not None:
                    set_bits(place + index, bits)
                progress(place + finished, total)

            routes += window
            tiles = iter(self._run(image, window, size, not alone, floats, on_tile))
            for _ in range(len(window) // len(columns.starts)):
                row = itertools.islice(tiles, len(columns.starts))
                yield np.concatenate(list(join(row, columns, self.scale, 1)), axis=1)
            del tiles, row

    def _run(
        self,
        image: Image,
        routes: list[TileRoute],
        size: _Size,
        many: bool,
        floats: bool,
        on_tile: Callable[[int, int, float | None], None],
    ) -> list[Image]:
        """The upscaled tiles of `routes`; those of one route run together, several at once where `many`.

        `on_tile(finished, index, bits)` gets how many are finished, which one it was, and the bits if it chose them.
        """
        results: list[Image | None] = [None] * len(routes)
        finished = 0
        for factor in sorted({route.factor for route in routes}):
            places = [index for index, route in enumerate(routes) if route.factor == factor]
            requests = self._graphs.requests(factor, size, many, floats, keep=many and not self._is_fitted(size))
            tiles = (cut_tile(image, routes[index].y, routes[index].x, *size)[None] for index in places)
            inputs = ({0: tile.astype(np.float32, copy=False) if floats else tile} for tile in tiles)
            for index, request in zip(places, requests.run(inputs), strict=True):
                results[index] = request.get_output_tensor(0).data[0].copy()
                # a graph that chose its bits itself tells them
                bits = float(request.get_output_tensor(1).data[0]) if len(request.model_outputs) > 1 else None
                finished += 1
                on_tile(finished, index, bits)
        return [result for result in results if result is not None]

    def _measure(self, image: Image, y: int, x: int, height: int, width: int) -> TileRoute:
        tile = image[y : y + height, x : x + width]
        thresholds = self.manifest.thresholds
        gradient, factor = 0.0, 0
        if thresholds is not None:
            gradient = tile_gradient(tile if tile.dtype == np.uint8 else np.rint(tile).astype(np.uint8))
            factor = route_factor(gradient, *thresholds)
        return TileRoute(y, x, tile.shape[0], tile.shape[1], gradient, factor, self.manifest.route(factor).fab)

    def _tile_for(self, height: int, width: int) -> tuple[int, int]:
        """The tile size for an image: no larger than the image, so that its border is where the network expects it, or
        than the next multiple of the network's period.

        A network that is bound to the size it was exported at gets that one, and the image is mirrored up to it.
        """
        fixed, period = self.manifest.tile, self.manifest.period
        height, width = (-(-side // period) * period for side in (height, width))
        if self.tile == "image":
            tile = (height, width)
        elif self.tile == "fit":
            tile = self._fitted(height // period, width // period) or fixed
        else:
            tile = self.tile
        wanted = (min(height, tile[0]), min(width, tile[1]))
        return wanted if self._graphs.can_run(wanted) else fixed

    def _fitted(self, height: int, width: int) -> tuple[int, int] | None:
        """The tile of `fit_tile` for an image of so many periods of the network."""
        period = self.manifest.period
        overlap, blend = -(-self.overlap // period), -(-(DEFAULT_BLEND + period - 1) // period)
        most, in_row = self._graphs.most_pixels // period**2, ROW_BYTES // (3 * self.scale**2 * period**2)
        if self.manifest.skips_layers():  # which saves time where tiles are small enough to be smooth
            most = min(most, math.prod(self.manifest.tile) // period**2)
        found = fit_tile(height, width, overlap, most, in_row, blend)
        return None if found is None else (found[0] * period, found[1] * period)

    def _is_fitted(self, size: _Size) -> bool:
        return self.tile == "fit" and size != self.manifest.tile


def _types(as_float: bool) -> tuple[type, ...]:
    return (np.uint8, np.float32) if as_float else (np.uint8,)


def _ignore(done: int, total: int) -> None:
    pass

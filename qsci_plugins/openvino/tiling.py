"""Tiles of one size over an image of any size, and back to one image without seams."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qsci_plugins.errors import UserError

__all__ = ["DEFAULT_BLEND", "Axis", "check_tile", "cut_tile", "join", "plan_axis", "smallest_tile", "video_period"]

#: input pixels over which one tile fades into the next
DEFAULT_BLEND = 4

#: where tiles of videos begin, as far as the tile's own size allows: networks stride, and a Bayer mosaic has a period of 2
_VIDEO_MULTIPLE = 8

#: (H,W,C) in 8 bits or floating point
Image = NDArray[Any]


@dataclass(frozen=True)
class Axis:
    """Where tiles lie along one axis, in input pixels.

    `starts` of the tiles; `zones` (start, end) between each pair of neighbours, where one fades into the other.
    """

    length: int
    tile: int
    starts: tuple[int, ...]
    zones: tuple[tuple[int, int], ...]


def smallest_tile(overlap: int, blend: int = DEFAULT_BLEND, multiple: int = 1) -> int:
    """Pixels along an axis that leave a tile a middle of its own; see `plan_axis`."""
    return 2 * overlap + blend + max(1, 2 * blend) + multiple - 1


def check_tile(tile: int, overlap: int, blend: int = DEFAULT_BLEND, multiple: int = 1) -> None:
    """Raises UserError where a tile is too small for `plan_axis`."""
    if tile < (smallest := smallest_tile(overlap, blend, multiple)):
        raise UserError(
            f"a tile of {tile} pixels is too small for an overlap of {overlap}; "
            f"take one of {smallest} or more, or a smaller overlap"
        )


def video_period(tile: tuple[int, int]) -> int:
    """What the places of a video network's tiles (height, width) are multiples of."""
    return math.gcd(_VIDEO_MULTIPLE, *tile)


def plan_axis(length: int, tile: int, overlap: int, blend: int, multiple: int = 1) -> Axis:
    """Tiles that cover 0..length, evenly spread, the first and the last flush with the image.

    All begin at multiples of `multiple`, where `length` and `tile` are such, for networks that stride and for mosaics.

    A zone lies at least `overlap` pixels away from the inner edges of both tiles, so that with an overlap of the
    network's receptive radius both tiles say there what the whole image would. Raises UserError where a tile is too
    small for that.
    """
    stride = tile - 2 * overlap - blend - (multiple - 1)
    if length <= tile:
        return Axis(length, tile, (0,), ())
    check_tile(tile, overlap, blend, multiple)
    count = -(-(length - tile) // stride) + 1
    starts = tuple(round(i * (length - tile) / (count - 1)) // multiple * multiple for i in range(count))
    zones = []
    for left, right in itertools.pairwise(starts):
        start = (left + tile + right - blend) // 2
        zones.append((start, start + blend))
    return Axis(length, tile, starts, tuple(zones))


def cut_tile(image: Image, y: int, x: int, height: int, width: int) -> Image:
    """The tile (height,width,C) at (y,x), contiguous; what lies below or right of a small image mirrors it."""
    tile = image[y : y + height, x : x + width]
    missing = (height - tile.shape[0], width - tile.shape[1])
    if any(missing):
        # numpy mirrors again and again where the image is smaller than the border, down to a single pixel
        tile = np.pad(tile, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="reflect")
    return np.ascontiguousarray(tile)


def join(parts: Iterable[Image], axis: Axis, scale: int, dimension: int) -> Iterator[Image]:
    """The network's output of the tiles of one axis, in order, as consecutive pieces of the whole along `dimension` (0 or 1).

    Inside a zone tiles are mixed linearly; equal tiles stay exactly what they are. Holds one part at a time.
    """
    carried: Image | None = None
    done = 0
    index = -1
    for part in parts:
        index += 1
        base = axis.starts[index] * scale
        if carried is not None:
            end = axis.zones[index - 1][1] * scale
            yield _mix(carried, _slice(part, done - base, end - base, dimension), dimension)
            done = end
        last = index == len(axis.starts) - 1
        start, end = (axis.length, axis.length) if last else axis.zones[index]
        yield _slice(part, done - base, start * scale - base, dimension)
        carried = _slice(part, start * scale - base, end * scale - base, dimension).copy()
        done = start * scale
        del part  # enumerate() would hold it beside the next one


def _slice(part: Image, start: int, end: int, dimension: int) -> Image:
    return part[start:end] if dimension == 0 else part[:, start:end]


def _mix(first: Image, second: Image, dimension: int) -> Image:
    size = first.shape[dimension]
    weight = (np.arange(size, dtype=np.float32) + 0.5) / size
    weight = weight[:, None, None] if dimension == 0 else weight[:, None]
    mixed = first + (second.astype(np.float32) - first) * weight
    return np.rint(mixed).astype(np.uint8) if first.dtype == np.uint8 else mixed

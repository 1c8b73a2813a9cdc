"""Tiles of one size over an image of any size, and back to one image without seams."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qsci_plugins.errors import UserError

if TYPE_CHECKING:  # float trainings plan tiles without it
    import openvino

__all__ = [
    "ACTIVATION_BYTES",
    "DEFAULT_BLEND",
    "ROW_BYTES",
    "Axis",
    "check_tile",
    "cut_tile",
    "fit_axis",
    "fit_tile",
    "join",
    "most_pixels",
    "plan_axis",
    "smallest_tile",
    "video_period",
]

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
    """Tiles that cover 0..length, evenly spread, the first flush with the image.

    All begin at multiples of `multiple`, the period of a network that strides or has windows, or of a mosaic; the last one
    is flush with the image too where `length` and `tile` are such multiples, and reaches beyond it otherwise.

    A zone lies at least `overlap` pixels away from the inner edges of both tiles, so that with an overlap of the
    network's receptive radius both tiles say there what the whole image would. Raises UserError where a tile is too
    small for that.
    """
    stride = tile - 2 * overlap - blend - (multiple - 1)
    if length <= tile:
        return Axis(length, tile, (0,), ())
    check_tile(tile, overlap, blend, multiple)
    last = -(-(length - tile) // multiple) * multiple
    count = -(-last // stride) + 1
    # of several at one place, which a long period makes of evenly spread ones, the first is enough
    starts = tuple(dict.fromkeys(round(i * last / (count - 1)) // multiple * multiple for i in range(count)))
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


#: what one tile may take inside the network: two tiles of a 4K frame for EDSR x2 and x4
ACTIVATION_BYTES = 1100 * 2**20

#: what one row of upscaled tiles may take, as wide as the image; it is held twice while it is joined
ROW_BYTES = 2**28


def fit_tile(
    height: int, width: int, overlap: int, most: int, most_in_row: int, blend: int = DEFAULT_BLEND
) -> tuple[int, int] | None:
    """The tile (height, width) whose grid over an image computes the fewest pixels; the whole image where that fits.

    `most` pixels in a tile, `most_in_row` in a row of tiles as wide as the image. Only sides inside the image pay for
    `overlap` and `blend`, so tiles are as large as may be, and the longer axis is cut first. None where no grid fits.
    """
    found = []
    for rows in itertools.count(1):
        tile_height = fit_axis(height, rows, overlap, blend)
        if tile_height is None:
            break
        if tile_height * width > most_in_row:
            continue
        columns = _fewest(width, most // tile_height, overlap, blend)
        tile_width = None if columns is None else fit_axis(width, columns, overlap, blend)
        if columns is not None and tile_width is not None:
            count = rows * columns
            found.append((count * tile_height * tile_width, count, tile_height, tile_width))
    return min(found)[2:] if found else None


def fit_axis(length: int, count: int, overlap: int, blend: int = DEFAULT_BLEND) -> int | None:
    """The smallest tile of which `count` cover 0..length as `plan_axis` lays them; None where `count` are too many."""
    if count == 1:
        return length
    shared, smallest = 2 * overlap + blend, smallest_tile(overlap, blend)
    if count > (_fewest(length, smallest, overlap, blend) or 1):
        return None
    return max(-(-(length + (count - 1) * shared) // count), smallest)


def most_pixels(model: openvino.Model, size: tuple[int, int], limit: int = ACTIVATION_BYTES) -> int:
    """Input pixels of a tile that stays within `limit` bytes, for a model that now takes tiles of `size`.

    Takes four bytes for each value of the largest tensor per input pixel. Measured with OpenVINO 2026.4 on the integer
    graphs of EDSR: 2.1 to 4.3 bytes, as what goes into convolutions takes one byte, and buffers are used again.
    """
    largest = max(
        (
            math.prod(output.get_shape())
            for node in model.get_ordered_ops()
            if node.get_type_name() != "Constant"
            for output in node.outputs()
            if output.get_partial_shape().is_static  # not what a network selects by the image
        ),
        default=0,
    )
    return max(1, limit * math.prod(size) // (4 * max(1, largest)))


def _fewest(length: int, tile: int, overlap: int, blend: int) -> int | None:
    """How many tiles of at most `tile` cover 0..length; None where such tiles are too small."""
    if length <= tile:
        return 1
    stride = tile - 2 * overlap - blend
    return -(-(length - tile) // stride) + 1 if stride >= 1 else None

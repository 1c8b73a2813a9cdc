"""The size of tiles for one image: as few pixels computed twice as memory allows."""

from __future__ import annotations

import itertools
import math

import openvino

from qsci_plugins.openvino.tiling import DEFAULT_BLEND, smallest_tile

__all__ = ["ACTIVATION_BYTES", "ROW_BYTES", "fit_axis", "fit_tile", "most_pixels"]

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
    shared = 2 * overlap + blend
    tile = -(-(length + (count - 1) * shared) // count)
    return tile if smallest_tile(overlap, blend) <= tile < length else None


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

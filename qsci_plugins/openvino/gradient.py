"""The content of a tile in numpy: the same number that AdaBM's image-to-bit mapping was calibrated on."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["measurement_gradient", "route_factor", "tile_gradient"]

#: thousandths of red, green and blue in grey; integers make the sums exact, in any order and on any machine
_GREY = (299, 587, 114)


def tile_gradient(tile: NDArray[np.uint8]) -> float:
    """Mean of |gx| and |gy| over pixels, times 1000, of a tile (H,W,3) of 8-bit RGB.

    gx, gy: Sobel kernels divided by 8, on grey in 0..1 with replicated borders. Equal to
    `schemes.content.image_gradient` up to that one's float rounding.
    """
    height, width = tile.shape[:2]
    grey = np.empty((height + 2, width + 2), np.int32)
    inner = grey[1:-1, 1:-1]
    np.multiply(tile[..., 0], np.int32(_GREY[0]), out=inner)
    inner += tile[..., 1] * np.int32(_GREY[1])
    inner += tile[..., 2] * np.int32(_GREY[2])
    grey[0, 1:-1], grey[-1, 1:-1] = inner[0], inner[-1]
    grey[:, 0], grey[:, -1] = grey[:, 1], grey[:, -2]
    total = _absolute_sum(grey[:, 2:] - grey[:, :-2], 0) + _absolute_sum(grey[2:] - grey[:-2], 1)
    # 255 * 1000 are the units of grey, 8 the kernels', and the mean of two sums is taken
    return total / (2 * 8 * 255 * height * width)


def measurement_gradient(measurement: NDArray[np.float32], value_range: float = 1.0) -> float:
    """The same of a snapshot measurement (H,W), a masked sum of frames in 0..value_range.

    Equal to `schemes.content.image_gradient` up to float rounding; sums are taken in double precision.
    """
    height, width = measurement.shape
    grey = np.pad(measurement.astype(np.float64), 1, mode="edge")
    total = _absolute_sum(grey[:, 2:] - grey[:, :-2], 0) + _absolute_sum(grey[2:] - grey[:-2], 1)
    return 1000 * total / (2 * 8 * value_range * height * width)


def route_factor(gradient: float, lower: float, upper: float) -> int:
    """AdaBM's image factor: 1 above `upper`, -1 below `lower`, else 0."""
    return int(gradient > upper) - int(gradient < lower)


def _absolute_sum(difference: NDArray[Any], axis: int) -> float:
    """Sum over pixels of |(1,2,1) smoothing along `axis` of a difference across the other one|."""
    before, middle, after = (
        (difference[:-2], difference[1:-1], difference[2:])
        if axis == 0
        else (difference[:, :-2], difference[:, 1:-1], difference[:, 2:])
    )
    smooth = middle + middle
    smooth += before
    smooth += after
    return float(np.abs(smooth, out=smooth).sum(dtype=np.float64))

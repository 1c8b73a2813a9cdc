"""MATLAB's bicubic `imresize` on 8-bit images, bit for bit: the degradation of every SR benchmark."""

from __future__ import annotations

import math

import numpy as np

__all__ = ["bicubic_down", "imresize", "modcrop"]

_BLOCK_VALUES = 2**22


def modcrop(image: np.ndarray, scale: int) -> np.ndarray:
    """The upper left part of (H,W,...) whose height and width are multiples of `scale`."""
    height, width = image.shape[0] // scale * scale, image.shape[1] // scale * scale
    return image[:height, :width]


def bicubic_down(image: np.ndarray, scale: int) -> np.ndarray:
    """LR from HR as the SR papers do it: crop to a multiple of `scale`, then `imresize` by 1/scale.

    uint8 (H,W) or (H,W,C) becomes uint8 (H//scale, W//scale, ...). Raises ValueError where nothing would be
    left.
    """
    return imresize(modcrop(image, scale), 1 / scale)


def imresize(image: np.ndarray, scale: float | None = None, size: tuple[int, int] | None = None) -> np.ndarray:
    """`imresize(image, scale)` or `imresize(image, size)` of MATLAB with its defaults (bicubic, antialiased).

    Keys' cubic kernel (a = -0.5), widened by 1/scale where it shrinks; symmetric borders; the dimension with
    the smaller scale first, rows before columns where they are equal; float64 sums that are rounded to 8 bits
    (half up) after EACH of the two passes. `image` is uint8 (H,W) or (H,W,C); `size` is (height, width), by
    default ceil(scale * (H,W)).
    """
    if image.dtype != np.uint8 or image.ndim not in (2, 3):
        raise ValueError(f"imresize takes uint8 (H,W) or (H,W,C), not {image.dtype} {image.shape}")
    height, width = image.shape[:2]
    if scale is not None and size is None:
        scales, size = (scale, scale), (math.ceil(scale * height), math.ceil(scale * width))
    elif size is not None and scale is None:
        scales = (size[0] / max(1, height), size[1] / max(1, width))
    else:
        raise ValueError("imresize takes either a scale or a size")
    if min(height, width, *size) < 1:
        raise ValueError(f"cannot resize {height}x{width} pixels to {size[0]}x{size[1]}")
    result = image
    for axis in sorted((0, 1), key=lambda axis: scales[axis]):
        if scales[axis] != 1:
            result = _resize_axis(result, axis, size[axis], scales[axis])
    return result.copy() if result is image else result


def _resize_axis(image: np.ndarray, axis: int, length: int, scale: float) -> np.ndarray:
    weights, indices = _contributions(image.shape[axis], length, scale)
    source = np.moveaxis(image, axis, 0)
    result = np.empty((length, *source.shape[1:]), np.uint8)
    column = (-1, *[1] * (source.ndim - 1))
    rows = max(1, _BLOCK_VALUES // max(1, source[0].size))
    for start in range(0, length, rows):
        block = slice(start, start + rows)
        # one tap after the other, as MATLAB sums: another order changes the last bit, and so a rounding now
        # and then
        total = np.zeros((len(range(length)[block]), *source.shape[1:]))
        for tap in range(weights.shape[1]):
            total += weights[block, tap].reshape(column) * source[indices[block, tap]]
        result[block] = np.clip(np.floor(total + 0.5), 0, 255)
    return np.ascontiguousarray(np.moveaxis(result, 0, axis))


def _contributions(source: int, target: int, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """For every output position the weights (target, taps) and the 0-based input positions of its taps."""
    shrink = min(scale, 1.0)
    width = 4.0 / shrink
    centre = np.arange(1, target + 1) / scale + 0.5 * (1 - 1 / scale)  # 1-based, as in MATLAB
    positions = np.floor(centre - width / 2)[:, None] + np.arange(math.ceil(width) + 2)
    weights = shrink * _cubic(shrink * (centre[:, None] - positions))
    weights /= weights.sum(axis=1, keepdims=True)
    mirrored = np.concatenate([np.arange(source), np.arange(source)[::-1]])
    indices = mirrored[(positions.astype(np.int64) - 1) % (2 * source)]
    used = np.any(weights != 0, axis=0)
    return weights[:, used], indices[:, used]


def _cubic(x: np.ndarray) -> np.ndarray:
    x = np.abs(x)
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x <= 1, near, np.where(x <= 2, far, 0.0))

"""Windows of an image for attention inside them (Liu et al., Swin Transformer, ICCV 2021)."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

__all__ = ["merge_windows", "part_windows", "relative_positions", "shift_mask"]


def part_windows(x: Tensor, window: tuple[int, int]) -> Tensor:
    """(B,H,W,C) to (B * windows, tokens of a window, C); H and W are multiples of the window's."""
    batch, height, breadth, width = x.shape
    rows, columns = window
    x = x.reshape(batch, height // rows, rows, breadth // columns, columns, width)
    return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, rows * columns, width)


def merge_windows(x: Tensor, window: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """The inverse of `part_windows` for an image of H, W = `size`."""
    rows, columns = window
    height, breadth = size
    x = x.reshape(-1, height // rows, breadth // columns, rows, columns, x.shape[-1])
    return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, height, breadth, x.shape[-1])


def relative_positions(grid: tuple[int, ...]) -> Tensor:
    """(n,n) index into a table of all relative positions of the n points of a grid, row by row."""
    points = np.indices(grid).reshape(len(grid), -1)
    index = np.zeros((points.shape[1],) * 2, dtype=np.int64)
    for size, coordinate in zip(grid, points, strict=True):
        index = index * (2 * size - 1) + (coordinate[:, None] - coordinate[None, :] + size - 1)
    return torch.from_numpy(index)


@lru_cache(maxsize=8)
def shift_mask(height: int, width: int, window: tuple[int, int], shift: tuple[int, int]) -> np.ndarray:
    """(windows, n, n) float32: -100 between tokens that only the cyclic shift made neighbours, else 0.

    Made by numpy alone, so that tracers see the same constant whether or not the cache holds it already.
    """
    rows, columns = (
        _regions(length, size, step) for length, size, step in zip((height, width), window, shift, strict=True)
    )
    regions = rows[:, None] * 3 + columns[None, :]
    parted = regions.reshape(height // window[0], window[0], width // window[1], window[1]).swapaxes(1, 2)
    tokens = parted.reshape(-1, window[0] * window[1])
    return np.where(tokens[:, :, None] == tokens[:, None, :], np.float32(0), np.float32(-100))


def _regions(length: int, size: int, step: int) -> np.ndarray:
    """Along one shifted axis: 0 before the last window, 1 in it, 2 where the other end of the image follows."""
    places = np.arange(length)
    return (places >= length - size).astype(int) + (places >= length - step) if step else np.zeros(length, dtype=int)

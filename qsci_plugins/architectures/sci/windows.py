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

    Made with numpy, so that tracers see a constant whether or not the cache already holds it.
    """
    regions = np.zeros((1, height, width, 1), dtype=np.float32)
    for axis, (length, size, step) in enumerate(zip((height, width), window, shift, strict=True)):
        if step:
            places = np.arange(length)
            region = (places >= length - size).astype(np.float32) + (places >= length - step)
            regions = regions * 3 + (region.reshape(1, -1, 1, 1) if axis == 0 else region.reshape(1, 1, -1, 1))
    tokens = part_windows(torch.from_numpy(regions), window).squeeze(-1).numpy()
    return np.where(tokens[:, :, None] == tokens[:, None, :], np.float32(0), np.float32(-100))

"""Phones store frames as the sensor lies, and say how to turn them."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Orientation", "orientation_of"]

_ONE = 1 << 16


@dataclass(frozen=True)
class Orientation:
    """Quarter turns counter-clockwise, then whether left and right are swapped."""

    turns: int = 0
    is_mirrored: bool = False

    def upright(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The frame (H,W,3) as it is to be seen."""
        turned = np.rot90(pixels, self.turns)
        return turned[:, ::-1] if self.is_mirrored else turned

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height of the upright frame."""
        return (height, width) if self.turns % 2 else (width, height)

    def aspect(self, ratio: Fraction) -> Fraction:
        """A pixel's width to its height once it is turned."""
        ratio = Fraction(ratio) if ratio and ratio > 0 else Fraction(1)
        return 1 / ratio if self.turns % 2 else ratio


def orientation_of(frame: Any) -> Orientation:
    """What the display matrix of a decoded frame asks for, to the next quarter turn."""
    rotation = round(frame.rotation / 90) % 4
    matrix = _display_matrix(frame)
    if matrix is None or matrix[0] * matrix[4] - matrix[1] * matrix[3] >= 0:
        return Orientation(rotation)
    # a mirror: the matrix turns after it has swapped left and right
    a, b = matrix[0], matrix[1]
    turned = {(1, 0): 2, (-1, 0): 0, (0, 1): 3, (0, -1): 1}[_sign(a, b)]
    return Orientation(turned, True)


def _display_matrix(frame: Any) -> list[int] | None:
    for data in frame.side_data:
        if getattr(data.type, "name", "") == "DISPLAYMATRIX":
            return [int(value) for value in np.frombuffer(bytes(data), np.int32)[:9]]
    return None


def _sign(a: int, b: int) -> tuple[int, int]:
    if abs(a) >= abs(b):
        return (1 if a > 0 else -1, 0)
    return (0, 1 if b > 0 else -1)

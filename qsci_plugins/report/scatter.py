"""A drawing of numbered points in a plane with labelled axes, and the front of those that nothing beats."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from qsci_plugins.errors import UserError
from qsci_plugins.report.summary import bench_quality

__all__ = ["Point", "bench_picture", "front", "scatter"]

_PAPER, _INK, _FAINT = (255, 255, 255), (34, 34, 34), (214, 214, 214)
_ON_FRONT, _BEATEN = (206, 46, 46), (49, 84, 196)
_LEFT, _RIGHT, _TOP, _BOTTOM = 76, 24, 20, 62


@dataclass(frozen=True)
class Point:
    """Less of `cost` and more of `quality` is better."""

    label: str
    cost: float
    quality: float


def front(points: Sequence[Point]) -> list[Point]:
    """The points that no other equals or beats in both respects, by rising cost; of equal ones the first."""
    best: list[Point] = []
    for point in sorted(points, key=lambda point: (point.cost, -point.quality)):
        if not best or point.quality > best[-1].quality:
            best.append(point)
    return best


def scatter(
    points: Sequence[Point], x_title: str, y_title: str, reference: tuple[str, float] | None = None
) -> np.ndarray:
    """The points, the line of their front, and a dashed level such as the float network's: uint8 (480,640,3)."""
    width, height = 640, 480
    canvas = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(canvas)
    small, normal = ImageFont.load_default(14), ImageFont.load_default(16)
    levels = [point.quality for point in points] + ([reference[1]] if reference else [])
    x_ticks, y_ticks = _ticks([point.cost for point in points]), _ticks(levels)

    def place(cost: float, quality: float) -> tuple[float, float]:
        across = (cost - x_ticks[0]) / (x_ticks[-1] - x_ticks[0])
        up = (quality - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])
        return _LEFT + across * (width - _LEFT - _RIGHT), height - _BOTTOM - up * (height - _TOP - _BOTTOM)

    for tick in x_ticks:
        x, bottom = place(tick, y_ticks[0])
        draw.line((x, _TOP, x, bottom), fill=_FAINT)
        draw.text((x, bottom + 6), _number(tick, x_ticks), fill=_INK, font=small, anchor="ma")
    for tick in y_ticks:
        left, y = place(x_ticks[0], tick)
        draw.line((left, y, width - _RIGHT, y), fill=_FAINT)
        draw.text((left - 8, y), _number(tick, y_ticks), fill=_INK, font=small, anchor="rm")
    draw.text(((width + _LEFT - _RIGHT) / 2, height - 14), x_title, fill=_INK, font=normal, anchor="ms")
    _write_upwards(canvas, y_title, normal, (4, (height - _BOTTOM + _TOP) // 2))
    if reference:
        left, y = place(x_ticks[0], reference[1])
        for start in range(int(left), width - _RIGHT, 12):
            draw.line((start, y, start + 6, y), fill=_INK)
        draw.text((width - _RIGHT - 4, y + 3), reference[0], fill=_INK, font=small, anchor="ra")
    best = front(points)
    draw.line([place(point.cost, point.quality) for point in best], fill=_ON_FRONT, width=2)
    for point in points:
        x, y = place(point.cost, point.quality)
        draw.ellipse((x - 5, y - 5, x + 5, y + 5), fill=_ON_FRONT if point in best else _BEATEN, outline=_PAPER)
        fits = x + 6 + small.getlength(point.label) < width
        offset, anchor = (6, "lt") if fits else (-6, "rt")
        draw.text((x + offset, y + 5), point.label, fill=_INK, font=small, anchor=anchor)
    return np.asarray(canvas)


def _ticks(values: Sequence[float]) -> list[float]:
    """Round numbers, evenly spaced, from below the smallest value to above the largest."""
    low, high = min(values), max(values)
    span = (high - low) or abs(high) / 10 or 1.0
    low, high = low - 0.05 * span, high + 0.05 * span
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(step for factor in (1, 2, 5, 10) if (step := factor * power) >= rough * (1 - 1e-9))
    first, last = math.floor(low / step), math.ceil(high / step)
    return [index * step for index in range(first, last + 1)]


def _number(tick: float, ticks: Sequence[float]) -> str:
    digits = max(0, -math.floor(math.log10(ticks[1] - ticks[0]) + 1e-9))
    return f"{tick:.{digits}f}"


def _write_upwards(
    canvas: Image.Image, text: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont, at: tuple[int, int]
) -> None:
    left, top, right, bottom = (round(side) for side in font.getbbox(text))
    strip = Image.new("RGB", (right - left + 4, bottom - top + 6), _PAPER)
    ImageDraw.Draw(strip).text((2 - left, 2 - top), text, fill=_INK, font=font)
    turned = strip.transpose(Image.Transpose.ROTATE_90)
    canvas.paste(turned, (at[0], at[1] - turned.height // 2))


def bench_picture(tables: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """uint8 (H,W,3) of what `bench` returns; quality is the mean PSNR (of images on Y) over the sets.

    Rows without numbers are left out. Raises UserError where there is no other.
    """
    points = []
    images = all(table["task"] == "sr" for table in tables)
    for table in tables:
        for row in table["rows"]:
            quality = [decibels for decibels in bench_quality(row).values() if decibels is not None]
            if "failed" in row or not quality:
                continue
            title = row["title"] if len(tables) == 1 else f"{table['model']}: {row['title']}"
            points.append(Point(title, row["median_ms"], sum(quality) / len(quality)))
    if not points:
        raise UserError("--picture: no row has both a time and a PSNR to draw")
    return scatter(points, "ms of one tile, median", "PSNR-Y, dB" if images else "PSNR, dB")

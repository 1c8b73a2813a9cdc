"""Pictures of a run: before and after side by side, and the bits of every tile drawn over the result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from PIL import Image, ImageDraw, ImageFont

__all__ = ["Area", "TileBits", "bit_map", "busiest_crop", "comparison", "tile_areas"]

#: top, left, bottom and right in pixels
Area = tuple[int, int, int, int]

_MARGIN = 12
_PAPER = (255, 255, 255)
_INK = (34, 34, 34)
#: fewest to most bits
_STOPS = ((0.0, (49, 84, 196)), (0.5, (240, 200, 60)), (1.0, (206, 46, 46)))
#: how much of the picture becomes grey, and of that a tile's colour
_FADE, _TINT = 0.6, 0.3
_LEGEND_LINE = 28


@dataclass(frozen=True)
class TileBits:
    """One tile of a picture, in its pixels, and its feature average bit-width."""

    top: int
    left: int
    height: int
    width: int
    bits: float


def bit_map(
    image: np.ndarray, tiles: Sequence[TileBits], title: str = "", possible: Sequence[float] = ()
) -> np.ndarray:
    """The picture, uint8 (H,W,3), tinted tile by tile by its bits, with a number on each and a legend underneath.

    `possible` are bits that other pictures may have, for a legend and colours that are the same for all.
    Returns uint8 (H + legend, W,3); tiles that overlap share their middle.
    """
    values = _values(tiles, possible)
    low, high = (values[0], values[-1]) if values else (0.0, 0.0)
    picture = image.astype(np.float32)
    picture += _FADE * (picture.mean(2, keepdims=True) - picture)
    boxes = _without_overlap(tiles, image.shape[0], image.shape[1])
    for (top, left, bottom, right), tile in zip(boxes, tiles, strict=True):
        colour = np.array(_colour(tile.bits, low, high), np.float32)
        picture[top:bottom, left:right] += _TINT * (colour - picture[top:bottom, left:right])
    canvas = Image.fromarray(picture.round().astype(np.uint8))
    draw = ImageDraw.Draw(canvas)
    for (top, left, bottom, right), tile in zip(boxes, tiles, strict=True):
        draw.rectangle((left, top, right - 1, bottom - 1), outline=_colour(tile.bits, low, high), width=2)
        text = f"{tile.bits:.2f}"
        font = _font(max(10, min(22, (right - left) // 6)))
        _, _, text_width, text_height = draw.textbbox((0, 0), text, font=font)
        if text_width + 8 <= right - left and text_height + 6 <= bottom - top:
            draw.rectangle((left + 2, top + 2, left + text_width + 8, top + text_height + 6), fill=_PAPER)
            draw.text((left + 5, top + 3), text, fill=_INK, font=font)
    return np.concatenate([np.asarray(canvas), _legend(canvas.width, tiles, values, title)])


def tile_areas(
    tiles: Sequence[TileBits], height: int, width: int, possible: Sequence[float] = ()
) -> list[tuple[Area, str]]:
    """The area of each tile in a picture of this size, which it shares with no other, and its colour in `bit_map`, #rrggbb."""
    values = _values(tiles, possible)
    areas = _without_overlap(tiles, height, width)
    return [
        (area, "#{:02x}{:02x}{:02x}".format(*_colour(tile.bits, values[0], values[-1])))
        for area, tile in zip(areas, tiles, strict=True)
    ]


def comparison(panels: Sequence[tuple[str, np.ndarray]], columns: int | None = None) -> np.ndarray:
    """Titled pictures, uint8 (H,W,3) each, next to each other on white in rows of `columns` (default: one row)."""
    columns = columns or len(panels)
    rows = [panels[start : start + columns] for start in range(0, len(panels), columns)]
    font = _font(18)
    line = 26
    width = max(sum(picture.shape[1] + _MARGIN for _, picture in row) for row in rows) + _MARGIN
    heights = [max(picture.shape[0] for _, picture in row) + line + _MARGIN for row in rows]
    canvas = Image.new("RGB", (width, sum(heights) + _MARGIN), _PAPER)
    draw = ImageDraw.Draw(canvas)
    top = _MARGIN
    for row, height in zip(rows, heights, strict=True):
        left = _MARGIN
        for title, picture in row:
            draw.text((left, top), _fitted(draw, title, font, picture.shape[1]), fill=_INK, font=font)
            canvas.paste(Image.fromarray(picture), (left, top + line))
            left += picture.shape[1] + _MARGIN
        top += height
    return np.asarray(canvas)


def busiest_crop(image: np.ndarray, size: int) -> tuple[int, int]:
    """Top left corner of the `size` x `size` window of uint8 (H,W,3) with the most detail, where networks differ."""
    grey = image.mean(2)
    detail = np.abs(np.diff(grey, axis=0, prepend=grey[:1])) + np.abs(np.diff(grey, axis=1, prepend=grey[:, :1]))
    height, width = min(size, grey.shape[0]), min(size, grey.shape[1])
    total = np.pad(detail.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    sums = total[height:, width:] - total[:-height, width:] - total[height:, :-width] + total[:-height, :-width]
    top, left = np.unravel_index(int(sums.argmax()), sums.shape)
    return int(top), int(left)


def _values(tiles: Sequence[TileBits], possible: Sequence[float]) -> list[float]:
    return sorted({round(bits, 2) for bits in (*possible, *(tile.bits for tile in tiles))})


def _without_overlap(tiles: Sequence[TileBits], height: int, width: int) -> list[Area]:
    """(top, left, bottom, right) of each tile, neighbours meeting in the middle of what they share."""
    rows = _meeting({(tile.top, tile.top + tile.height) for tile in tiles}, height)
    columns = _meeting({(tile.left, tile.left + tile.width) for tile in tiles}, width)
    boxes = []
    for tile in tiles:
        top, bottom = rows[tile.top, tile.top + tile.height]
        left, right = columns[tile.left, tile.left + tile.width]
        boxes.append((top, left, bottom, right))
    return boxes


def _meeting(spans: set[tuple[int, int]], end: int) -> dict[tuple[int, int], tuple[int, int]]:
    ordered = sorted(spans)
    starts = [0, *((before[1] + after[0]) // 2 for before, after in pairwise(ordered))]
    stops = [*starts[1:], end]
    return {
        span: (max(span[0], start), min(span[1], stop, end))
        for span, start, stop in zip(ordered, starts, stops, strict=True)
    }


def _colour(bits: float, low: float, high: float) -> tuple[int, int, int]:
    place = 0.5 if high <= low else (bits - low) / (high - low)
    place = min(1.0, max(0.0, place))
    for (start, first), (stop, second) in pairwise(_STOPS):
        if place <= stop:
            share = (place - start) / (stop - start)
            red, green, blue = (round(a + share * (b - a)) for a, b in zip(first, second, strict=True))
            return red, green, blue
    return _STOPS[-1][1]


def _legend(width: int, tiles: Sequence[TileBits], values: list[float], title: str) -> np.ndarray:
    """A white strip: a box per bit-width and how many tiles have it, or a few of the scale where there are many."""
    font = _font(16)
    shown = values if len(values) <= 6 else [values[index * (len(values) - 1) // 4] for index in range(5)]
    entries: list[tuple[str, tuple[int, int, int] | None]] = [(title, None)] if title else []
    for value in shown:
        count = sum(round(tile.bits, 2) == value for tile in tiles)
        text = f"{value:.2f} bits ({count})" if len(values) <= 6 else f"{value:.2f} bits"
        entries.append((text, _colour(value, values[0], values[-1])))
    places, left, top = [], 4, 0
    for text, colour in entries:
        needed = int(font.getlength(text)) + (24 if colour else 0)
        if left > 4 and left + needed > width:
            left, top = 4, top + _LEGEND_LINE
        places.append((left, top))
        left += needed + 18
    canvas = Image.new("RGB", (width, top + _LEGEND_LINE + 6), _PAPER)
    draw = ImageDraw.Draw(canvas)
    for (text, colour), (left, top) in zip(entries, places, strict=True):
        if colour:
            draw.rectangle((left, top + 8, left + 18, top + 26), fill=colour, outline=_INK)
        draw.text((left + (24 if colour else 0), top + 8), text, fill=_INK, font=font)
    return np.asarray(canvas)


def _fitted(
    draw: ImageDraw.ImageDraw, text: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont, width: int
) -> str:
    if draw.textlength(text, font=font) <= width:
        return text
    while text and draw.textlength(f"{text}...", font=font) > width:
        text = text[:-1]
    return f"{text}..."


def _font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)

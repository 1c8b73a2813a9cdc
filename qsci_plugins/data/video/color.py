"""From a clip's YCbCr to RGB and back, by the matrix and range that it is tagged with.

Chroma is repeated where it is read and averaged where it is written, so that an enlarger that repeats pixels gives back
the very samples that the clip held.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

__all__ = ["ColorTags", "FromRGB", "ToRGB", "has_alpha", "tags_of"]

#: values of ISO/IEC 23091-2 (H.273), which every container and codec uses
BT709, UNSPECIFIED, BT2020 = 1, 2, 9
_SMPTE170M, _SRGB = 6, 13
_TV, _FULL = 1, 2
_RGB_MATRIX = 0
_PQ, _HLG, _BT2020_TRANSFERS = 16, 18, (14, 15)

#: matrices that swscale converts exactly
_MATRICES = (1, 4, 5, 6, 7)

#: swscale's flags: a box filter and exact arithmetic, with all chroma samples taken
_EXACT = 0x20 | 0x40000 | 0x2000 | 0x4000

#: primaries and transfer where only the matrix is known
_OF_MATRIX = {1: (1, 1), 4: (4, 4), 5: (5, 6), 6: (6, 6), 7: (7, 7)}


@dataclass(frozen=True)
class ColorTags:
    """Primaries, transfer and matrix in the numbers of H.273, and the range: 1 for 16..235, 2 for 0..255."""

    primaries: int = BT709
    transfer: int = BT709
    matrix: int = BT709
    range: int = _TV

    @property
    def is_wide(self) -> bool:
        """Whether 8 bits do not hold it: PQ, HLG and bt2020."""
        wide = self.transfer in (_PQ, _HLG, *_BT2020_TRANSFERS)
        return wide or self.primaries == BT2020 or self.matrix in (BT2020, BT2020 + 1)

    @property
    def is_known(self) -> bool:
        """Whether its matrix can be computed with."""
        return self.matrix in _MATRICES


def tags_of(context: Any, frame: Any) -> ColorTags:
    """What a decoder and its first frame say; where they say nothing, what players take for a clip of that size."""
    primaries, transfer, matrix = (
        _first(getattr(frame, name, UNSPECIFIED), getattr(context, name, UNSPECIFIED))
        for name in ("color_primaries", "color_trc", "colorspace")
    )
    tags = ColorTags(primaries, transfer, matrix, _first(frame.color_range, context.color_range, unspecified=0))
    form = frame.format
    if form.is_rgb or form.name.startswith("pal"):
        # pictures are sRGB; bt709 is what they are coded in
        transfer = _SRGB if tags.transfer == UNSPECIFIED else tags.transfer
        return ColorTags(_or(tags.primaries, BT709), transfer, BT709, _TV)
    if tags.range == 0:
        tags = replace(tags, range=_FULL if form.name.startswith(("yuvj", "gray")) else _TV)
    if tags.matrix in (UNSPECIFIED, _RGB_MATRIX):
        by_size = BT709 if frame.width >= 1280 or frame.height > 576 else _SMPTE170M
        tags = replace(tags, matrix=tags.primaries if tags.primaries in (1, 5, 6, 7) else by_size)
    primaries, transfer = _OF_MATRIX.get(tags.matrix, (tags.primaries, tags.transfer))
    return replace(tags, primaries=_or(tags.primaries, primaries), transfer=_or(tags.transfer, transfer))


def has_alpha(form: Any) -> bool:
    """Whether a pixel format holds transparency."""
    return form.name.startswith("pal") or any(component.is_alpha for component in form.components)


class ToRGB:
    """Frames of one clip as 8-bit RGB (H,W,3)."""

    def __init__(self, tags: ColorTags) -> None:
        self._tags = tags
        self._eight_bits, self._rgb = VideoReformatter(), VideoReformatter()

    def __call__(self, frame: Any) -> NDArray[np.uint8]:
        """The frame's pixels as it is tagged."""
        form = frame.format
        if form.is_rgb or form.name.startswith(("pal", "gray", "mono")):
            pixels: NDArray[np.uint8] = frame.to_ndarray(format="rgb24")
            return pixels
        across, down = (form.chroma_width(64), form.chroma_height(64))
        target = {(32, 32): "yuv420p", (32, 64): "yuv422p", (64, 32): "yuv440p", (16, 64): "yuv411p"}.get(
            (across, down)
        )
        if (across, down) == (16, 16):
            target = "yuv410p"
        planar = self._convert(self._eight_bits, frame, target or "yuv444p", self._tags.range)
        full = planar if target is None else _repeated(planar)
        converted: NDArray[np.uint8] = self._convert(self._rgb, full, "rgb24", _FULL).to_ndarray()
        return converted

    def _convert(self, reformatter: VideoReformatter, frame: Any, form: str, range_: int) -> Any:
        name = frame.format.name.replace("yuvj", "yuv")
        if name == form and name == frame.format.name:
            return frame
        return reformatter.reformat(
            frame,
            format=form,
            interpolation=_EXACT,
            src_colorspace=self._tags.matrix,
            dst_colorspace=self._tags.matrix,
            src_color_range=self._tags.range,
            dst_color_range=range_,
        )


class FromRGB:
    """RGB (H,W,3) as frames of 8-bit 4:2:0, which every player takes."""

    def __init__(self, tags: ColorTags) -> None:
        self._tags = tags
        self._reformatter = VideoReformatter()

    def __call__(self, pixels: NDArray[np.uint8]) -> Any:
        """A frame in the matrix and range of the tags."""
        return self._reformatter.reformat(
            av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24"),
            format="yuv420p",
            interpolation=_EXACT,
            src_colorspace=self._tags.matrix,
            dst_colorspace=self._tags.matrix,
            src_color_range=_FULL,
            dst_color_range=self._tags.range,
        )


def _repeated(frame: Any) -> Any:
    """A planar 8-bit frame with chroma of every pixel."""
    height, width = frame.height, frame.width
    full = av.VideoFrame(width, height, "yuv444p")
    for source, target in zip(frame.planes, full.planes, strict=True):
        samples = _samples(source)
        rows, columns = -(-height // source.height), -(-width // source.width)
        _samples(target)[:] = samples.repeat(rows, 0).repeat(columns, 1)[:height, :width]
    return full


def _samples(plane: Any) -> NDArray[np.uint8]:
    return np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: plane.height, : plane.width]


def _first(*values: int, unspecified: int = UNSPECIFIED) -> int:
    return next((int(value) for value in values if value != unspecified), unspecified)


def _or(value: int, default: int) -> int:
    return default if value == UNSPECIFIED else value

"""RGB frames as H.264, with all that a player must know to show them as they were."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, NamedTuple

import av
import numpy as np
from numpy.typing import NDArray

from qsci_plugins.data.video.color import ColorTags, FromRGB
from qsci_plugins.data.video.opening import reason
from qsci_plugins.errors import UserError
from qsci_plugins.machine import usable_threads

__all__ = ["CODEC", "EncodedFrame", "Encoder", "Encoding"]

CODEC = "libx264"

#: a clock that containers write as it is: coarser ones lose nothing, and finer ones do not fit
_FINEST = Fraction(1, 1_000_000)


class EncodedFrame(NamedTuple):
    """A coded frame, in coding order, and when it is shown, in ticks of the encoding's time base."""

    stamp: int
    is_key: bool
    data: bytes


@dataclass(frozen=True)
class Encoding:
    """How frames are coded: width and height in pixels, even; the time base in seconds; frames per second; a pixel's width
    to its height; colour; x264's constant rate factor (0 loses nothing); and its threads, which decide into how many slices
    a frame is cut: segments of one clip have the same, wherever they are coded."""

    width: int
    height: int
    time_base: Fraction
    rate: Fraction
    aspect: Fraction = Fraction(1)
    color: ColorTags = field(default_factory=ColorTags)
    quality: int = 10
    #: as many as x264 takes by itself
    threads: int = field(default_factory=usable_threads)

    def __post_init__(self) -> None:
        if self.time_base < _FINEST:
            object.__setattr__(self, "time_base", _FINEST)

    def apply(self, context: Any) -> None:
        """Sets up an encoder."""
        context.width, context.height, context.pix_fmt = self.width, self.height, "yuv420p"
        context.time_base, context.framerate = self.time_base, self.rate
        context.sample_aspect_ratio = self.aspect
        context.color_primaries, context.color_trc = self.color.primaries, self.color.transfer
        context.colorspace, context.color_range = self.color.matrix, self.color.range
        context.thread_count = self.threads
        context.options = {"crf": str(self.quality), "preset": "veryfast"}


class Encoder:
    """Codes frames by themselves, without a container; what it writes begins with a key frame.

    Raises UserError for frames that cannot be coded.
    """

    def __init__(self, encoding: Encoding) -> None:
        self._encoding = encoding
        self._from_rgb = FromRGB(encoding.color)
        self._context: Any = av.CodecContext.create(CODEC, "w")
        encoding.apply(self._context)
        self._context.flags |= _GLOBAL_HEADER
        try:
            self._context.open()
        except (av.error.FFmpegError, ValueError) as error:
            size = f"{encoding.width}x{encoding.height}"
            raise UserError(f"frames of {size} pixels cannot be coded as H.264: {reason(error)}") from error

    @property
    def header(self) -> bytes:
        """What the container holds once for all frames."""
        return bytes(self._context.extradata or b"")

    def encode(self, pixels: NDArray[np.uint8], stamp: int) -> Iterator[EncodedFrame]:
        """Codes the next frame (height,width,3); frames come out when the encoder has seen those after them."""
        frame = self._from_rgb(pixels[: self._encoding.height, : self._encoding.width])
        frame.pts, frame.time_base = stamp, self._encoding.time_base
        yield from map(_encoded, self._context.encode(frame))

    def finish(self) -> Iterator[EncodedFrame]:
        """The frames that the encoder still holds."""
        yield from map(_encoded, self._context.encode(None))


def _encoded(packet: Any) -> EncodedFrame:
    return EncodedFrame(int(packet.pts), bool(packet.is_keyframe), bytes(packet))


#: FFmpeg's AV_CODEC_FLAG_GLOBAL_HEADER
_GLOBAL_HEADER = 1 << 22

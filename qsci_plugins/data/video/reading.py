"""Video files one frame at a time, so that a clip of any length takes the same memory."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import av
import numpy as np
from numpy.typing import NDArray

from qsci_plugins.data.video.clock import SteadyClock
from qsci_plugins.data.video.color import ToRGB, tags_of
from qsci_plugins.data.video.deinterlacing import deinterlaced
from qsci_plugins.data.video.opening import open_clip, reason
from qsci_plugins.data.video.orientation import Orientation, orientation_of
from qsci_plugins.errors import UserError

__all__ = ["DamagedClipError", "TimedFrame", "VideoReader"]

#: containers whose clock starts anywhere; theirs is moved to 0 where it starts later than this many seconds
_FREE_CLOCKS = ("mpegts", "mpeg")
_LATE = 1

#: containers that tell no times of display
_WITHOUT_TIMES = ("avi",)

#: containers that tell a track's length exactly, and with it how long the last frame stands
_EXACT_LENGTHS = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")

#: pixels of a frame: a file of some bytes may ask for gigabytes
_MOST_PIXELS = 1 << 26

#: rates above are no rates, but the clock that the container counts in
_HIGHEST_RATE = 240


class DamagedClipError(UserError):
    """A clip cannot be read on."""


class TimedFrame(NamedTuple):
    """A frame (H,W,3) of 8-bit RGB, the right way up, and when it is shown, in ticks of the reader's time base."""

    pixels: NDArray[np.uint8]
    stamp: int


class VideoReader:
    """The frames of a video file, each (H,W,3) the right way up and whole, once through.

    `frames` is their number as the file tells it, 0 where it does not; `rate` is in frames per second; `seconds` is the
    length, None where it is not known. `time_base` is in seconds. `origin` is the time in seconds, on the file's own clock,
    that is 0 for the frames. `aspect` is a pixel's width to its height, `color` how it is coded. `start` is the tick of the
    first one, and once all were read, `end` the tick at which the last one ends. `size` is the width and height of upright
    frames. `is_interlaced` becomes true where fields were merged.

    Raises UserError for a file that holds no video or frames of more than 2^26 pixels, and at the frame where a damaged one
    breaks off.
    """

    def __init__(self, file: str | Path) -> None:
        self.file = Path(file)
        self.container = open_clip(self.file)
        try:
            self.stream = self._best_stream()
            self.stream.thread_type = "AUTO"
            self.time_base: Fraction = self.stream.time_base or Fraction(1, 1000)
            self.rate = self._sensible_rate()
            self.origin = self._origin()
            self.end = 0
            self.is_interlaced = False
            self._count = 0
            decoded = self._decoded()
            self.first, stamp = next(decoded)
            self._frames = itertools.chain([(self.first, stamp)], decoded)
            self.start = stamp
            self._last: tuple[Any, int] = (self.first, stamp)
            self.seconds = self._seconds()
            self.frames: int = self.stream.frames or round((self.seconds or 0) * float(self.rate))
            self.color = tags_of(self.stream.codec_context, self.first)
            self.orientation: Orientation = orientation_of(self.first)
            self.size: tuple[int, int] = self.orientation.size(self.first.width, self.first.height)
            self.aspect = self.orientation.aspect(self.stream.sample_aspect_ratio or Fraction(1))
        except BaseException:
            self.container.close()
            raise

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        return (frame.pixels for frame in self.timed())

    def timed(self, skip: int = 0) -> Iterator[TimedFrame]:
        """Frames and their times, without the first `skip`, which are decoded alone."""
        to_rgb = ToRGB(self.color)
        size = (self.first.width, self.first.height)
        for index, (frame, stamp) in enumerate(deinterlaced(self._frames, self.time_base)):
            self._last = frame, stamp
            if (frame.width, frame.height) != size:
                raise DamagedClipError(
                    f"{self.file}: frame {index + 1} is {frame.width}x{frame.height} pixels, the first one"
                    f" {size[0]}x{size[1]}; cut the clip where its size changes"
                )
            if index >= skip:
                yield TimedFrame(self.orientation.upright(to_rgb(frame)), stamp)
        self.end = self._end()

    def decoded(self) -> Iterator[Any]:
        """Frames as the decoder gives them."""
        return (frame for frame, _ in self._frames)

    def close(self) -> None:
        """Lets go of the file."""
        self.container.close()

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _best_stream(self) -> Any:
        """The film, not the picture on its cover."""
        streams = [stream for stream in self.container.streams.video if stream.codec_context is not None]
        films = [stream for stream in streams if not stream.disposition & av.stream.Disposition.attached_pic]
        if not films:
            raise UserError(f"{self.file} holds no video")
        width, height = films[0].codec_context.width, films[0].codec_context.height
        if width * height > _MOST_PIXELS:
            raise UserError(f"{self.file} has {width}x{height} pixels, more than the {_MOST_PIXELS} that are read")
        return films[0]

    def _decoded(self) -> Iterator[tuple[Any, int]]:
        """Frames as they are coded, and their times from `origin`."""
        step = round(1 / self.rate / self.time_base)
        clock = SteadyClock(step, round(1 / self.time_base))
        shift = round(self.origin / self.time_base)
        counts_frames, delay = self.container.format.name in _WITHOUT_TIMES, None
        try:
            for packet in self.container.demux(self.stream):
                try:
                    frames = packet.decode()
                except av.error.InvalidDataError:
                    if self._count:
                        raise
                    continue  # a broadcast that was cut before its first whole picture
                for frame in frames:
                    self._count += 1
                    self.is_interlaced |= frame.interlaced_frame
                    stamp = frame.pts if frame.pts is not None else frame.dts
                    if counts_frames:  # its frames have places alone; the decoder knows their order
                        delay = delay if delay is not None or frame.dts is None else frame.dts - (stamp or 0)
                        stamp = None if frame.dts is None else frame.dts - (delay or 0)
                    yield frame, clock(None if stamp is None else stamp - shift)
        except (av.error.FFmpegError, OSError, ValueError) as error:
            if self._count:
                raise DamagedClipError(f"{self.file} is damaged after frame {self._count}: {reason(error)}") from error
            raise UserError(f"cannot read {self.file} as a video: {reason(error)}") from error
        if not self._count:
            raise UserError(f"{self.file} holds no frame that can be decoded")

    def _sensible_rate(self) -> Fraction:
        for rate in (self.stream.average_rate, self.stream.base_rate, self.stream.guessed_rate):
            if rate and 0 < rate <= _HIGHEST_RATE:
                return Fraction(rate)
        return Fraction(25)

    def _origin(self) -> Fraction:
        start = Fraction(self.container.start_time or 0, av.time_base)
        return start if self.container.format.name in _FREE_CLOCKS and abs(start) > _LATE else Fraction(0)

    def _seconds(self) -> float | None:
        """How long the track is."""
        end = self._stated_end()
        if end is not None:
            return float((end - self._last[1]) * self.time_base)
        return self.container.duration / av.time_base if self.container.duration else None

    def _stated_end(self) -> int | None:
        """The tick where the track ends, as the file tells it."""
        start = self.stream.start_time
        if self.stream.duration and start is not None:
            return int(start + self.stream.duration) - round(self.origin / self.time_base)
        return _ticks(self.stream.metadata.get("DURATION", ""), self.time_base)

    def _end(self) -> int:
        frame, stamp = self._last
        stated = self._stated_end()
        lasts = int(getattr(frame, "duration", 0) or 0)
        exact = self.container.format.name in _EXACT_LENGTHS
        if stated is not None and stated > stamp and (exact or not lasts):
            return stated
        return stamp + (lasts if lasts > 0 else max(1, round(1 / self.rate / self.time_base)))


def _ticks(text: str, time_base: Fraction) -> int | None:
    """Matroska's 00:00:01.181000000 in ticks."""
    found = re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d{1,9})?)", text.strip())
    if not found:
        return None
    seconds = int(found[1]) * 3600 + int(found[2]) * 60 + Fraction(found[3])
    return math.floor(seconds / time_base + Fraction(1, 2))

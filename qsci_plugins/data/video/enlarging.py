"""A clip's frames through an enlarger into segments, several frames at once and in constant memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from fractions import Fraction
from itertools import islice
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from qsci_plugins.data.video.encoding import EncodedFrame, Encoder, Encoding
from qsci_plugins.data.video.reading import TimedFrame, VideoReader
from qsci_plugins.data.video.segments import Segment, WorkFolder, segment_frames

__all__ = ["code_frames", "encoding_of", "enlarge_clip", "enlarge_segments", "in_order"]

Frame = NDArray[np.uint8]
_T = TypeVar("_T")
_U = TypeVar("_U")


def encoding_of(reader: VideoReader, scale: int) -> Encoding:
    """How the enlarged clip is coded: as the clip is tagged, at its clock, the sides cut to even lengths for 4:2:0."""
    width, height = (scale * side - scale * side % 2 for side in reader.size)
    return Encoding(width, height, reader.time_base, reader.rate, reader.aspect, reader.color)


def enlarge_clip(
    reader: VideoReader,
    enlarge: Callable[[Frame], Frame],
    encoding: Encoding,
    work: WorkFolder,
    *,
    seconds: float | None = None,
    workers: int = 1,
    on_frame: Callable[[], None] = lambda: None,
) -> None:
    """Writes the segments that `work` does not hold yet, of the whole clip or its first `seconds`.

    `enlarge` takes and gives frames (H,W,3), in `workers` threads; `on_frame` is called after each frame. Segments begin at
    the same frames whether a run was interrupted or not, so that they are the same.
    """
    clock = _Clock(reader, encoding, seconds)

    def enlarged(frame: TimedFrame) -> TimedFrame:
        return TimedFrame(enlarge(frame.pixels), frame.stamp)

    count = segment_frames(encoding.width, encoding.height)
    with closing(in_order(enlarged, clock.of(reader.timed(work.frames)), workers)) as frames:
        while coded := _segment(islice(frames, count), encoding, on_frame):
            work.add(coded)
    work.finish(clock.end)


def enlarge_segments(
    reader: VideoReader,
    code: Callable[[Iterable[list[TimedFrame]]], Iterable[Segment]],
    encoding: Encoding,
    work: WorkFolder,
    *,
    on_segment: Callable[[int], None] = lambda frames: None,
) -> None:
    """Writes the segments that `work` does not hold yet, the very same as `enlarge_clip` does.

    `code` turns the frames of each, as they were decoded, into a segment, in order; `on_segment` gets how many it has.
    """
    clock = _Clock(reader, encoding, None)
    count = segment_frames(encoding.width, encoding.height)
    frames = clock.of(reader.timed(work.frames))
    for segment in code(iter(lambda: list(islice(frames, count)), [])):
        work.add(segment)
        on_segment(len(segment.frames))
    work.finish(clock.end)


def code_frames(frames: Iterable[TimedFrame], enlarge: Callable[[Frame], Frame], encoding: Encoding) -> Segment:
    """Frames enlarged and coded by themselves; raises ValueError where there are none."""
    with closing(in_order(lambda each: TimedFrame(enlarge(each.pixels), each.stamp), frames, 1)) as enlarged:
        segment = _segment(enlarged, encoding, lambda: None)
    if segment is None:
        raise ValueError("a segment has frames")
    return segment


def in_order(function: Callable[[_T], _U], items: Iterable[_T], workers: int) -> Generator[_U, None, None]:
    """`function` of every item, in order, computed in threads while the next ones are fetched and the last ones used."""
    waiting: deque[Future[_U]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _segment(frames: Iterable[TimedFrame], encoding: Encoding, on_frame: Callable[[], None]) -> Segment | None:
    """The frames coded by themselves; None where there are none."""
    encoder: Encoder | None = None
    coded: list[EncodedFrame] = []
    for frame in frames:
        encoder = encoder or Encoder(encoding)
        coded += encoder.encode(frame.pixels, frame.stamp)
        on_frame()
    if encoder is None:
        return None
    return Segment(encoder.header, [*coded, *encoder.finish()])


class _Clock:
    """Times in ticks of the encoding, until the clip, or the part of it that is wanted, ends."""

    def __init__(self, reader: VideoReader, encoding: Encoding, seconds: float | None) -> None:
        self._reader = reader
        self._ratio = reader.time_base / encoding.time_base
        self._limit = None if seconds is None else reader.start + max(1, int(Fraction(seconds) / reader.time_base))
        self._ended: int | None = None

    def of(self, frames: Iterable[TimedFrame]) -> Iterator[TimedFrame]:
        for frame in frames:
            if self._limit is not None and frame.stamp >= self._limit:
                self._ended = frame.stamp
                return
            yield TimedFrame(frame.pixels, self._ticks(frame.stamp))

    @property
    def end(self) -> int:
        """The tick where the last frame ends."""
        return self._ticks(self._reader.end if self._ended is None else self._ended)

    def _ticks(self, stamp: int) -> int:
        return round(stamp * self._ratio)

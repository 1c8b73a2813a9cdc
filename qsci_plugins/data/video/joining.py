"""One file of the segments of a film and of all that its source holds besides, without coding a frame again."""

from __future__ import annotations

import heapq
import os
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from qsci_plugins.data.video.encoding import CODEC, Encoding
from qsci_plugins.data.video.opening import open_clip, reason, url
from qsci_plugins.data.video.segments import WorkFolder
from qsci_plugins.data.video.tracks import Tracks
from qsci_plugins.errors import UserError

__all__ = ["WRITABLE", "check_writable", "join_segments"]

#: what is written, and FFmpeg's name of it
WRITABLE = {".mp4": "mp4", ".mkv": "matroska", ".mov": "mov"}


def check_writable(file: Path) -> str:
    """FFmpeg's name of the container that `file` asks for. Raises UserError for another suffix."""
    if file.suffix.lower() not in WRITABLE:
        raise UserError(f"cannot write {file}: videos are written as {', '.join(WRITABLE)}")
    return WRITABLE[file.suffix.lower()]


def join_segments(
    work: WorkFolder,
    encoding: Encoding,
    output: Path,
    source: Path,
    film: int,
    origin: Fraction = Fraction(0),
    *,
    only_film: bool = False,
) -> list[str]:
    """Writes `output`, complete or not at all, from the segments and the other tracks of `source`.

    `film` is the index of the stream that was enlarged, `origin` its time in seconds that became 0. With `only_film`
    there are no other tracks. Returns a line for each thing that the output does not hold. Raises UserError where writing
    fails.
    """
    format_ = check_writable(output)
    # what a killed process leaves goes with the folder
    temporary = work.path / f"joined{output.suffix}"
    try:
        with closing(open_clip(source)) as clip:
            # sound may begin before 0, where its decoder warms up: no reason to move the film
            options = {"avoid_negative_ts": "disabled"}
            if format_ != "matroska":  # a late start is counted in the film's own ticks
                options["movie_timescale"] = str(_timescale(encoding.time_base))
            with av.open(url(temporary), "w", format=format_, container_options=options) as container:
                stream = container.add_stream(CODEC, rate=encoding.rate)
                encoding.apply(stream.codec_context)
                tracks = None if only_film else Tracks(clip, clip.streams[film], container, origin)
                stream.time_base = encoding.time_base
                container.start_encoding()
                others = iter(()) if tracks is None else tracks.packets()
                for packet in heapq.merge(_packets(work, encoding, stream), others, key=_time):
                    container.mux(packet)
            if tracks is None:
                os.replace(temporary, output)
                return []
            with closing(open_clip(temporary)) as written:
                notes = [*tracks.notes, *tracks.lost_in(written)]
        os.replace(temporary, output)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise UserError(f"cannot write {output}: {reason(error)}") from error
    finally:
        with suppress(OSError):
            temporary.unlink()
    return notes


def _timescale(time_base: Fraction) -> int:
    """Ticks per second that hold those of the film, and are not coarser than ms."""
    scale = time_base.denominator
    return scale * max(1, -(-1000 // scale))


def _packets(work: WorkFolder, encoding: Encoding, stream: Any) -> Iterator[Any]:
    """The film's packets. Decoding times are the times of display, as many frames earlier as frames are reordered."""
    header = bytes(stream.codec_context.extradata or b"")
    times = _times(work)
    coarse = "matroska" in stream.container.format.name
    shortest = -(-Fraction(1, 1000) // encoding.time_base) if coarse else 1
    index = 0
    for segment in work.segments():
        if segment.header != header:
            raise UserError(f"{work.path} was written by another FFmpeg; remove it, and start again")
        for frame in segment.frames:
            packet = av.Packet(frame.data)
            packet.stream, packet.time_base = stream, encoding.time_base
            packet.pts, packet.is_keyframe = frame.stamp, frame.is_key
            packet.dts = times.decoding(index)
            # a duration that rounds to nothing on the container's clock would be guessed there
            packet.duration = max(times.duration(index, frame.stamp), shortest)
            yield packet
            index += 1


@dataclass(frozen=True)
class _Times:
    """`shown`: when frames are shown, in order, and `end` when the last one ends; `delay`: by how many frames coding is
    ahead at most, and `lead` by how many ticks at the beginning."""

    shown: np.ndarray
    end: int
    delay: int
    lead: int

    def decoding(self, index: int) -> int:
        """When the frame at this place in coding order is decoded: before it is shown, and after the one before it."""
        if index >= self.delay:
            return int(self.shown[index - self.delay])
        return int(self.shown[0]) - self.lead + index * self.lead // self.delay

    def duration(self, index: int, stamp: int) -> int:
        """How long a frame lasts; for the last one in coding order, until all decoding took as long as all display."""
        if index == len(self.shown) - 1:
            return self.end - self.lead - self.decoding(index)
        after = int(np.searchsorted(self.shown, stamp, side="right"))
        return (int(self.shown[after]) if after < len(self.shown) else self.end) - stamp


def _times(work: WorkFolder) -> _Times:
    shown, delay, last = [], 0, 0
    for stamps in work.stamps():
        order = np.argsort(np.argsort(stamps))
        delay = max(delay, int((np.arange(len(stamps)) - order).max()))
        shown.append(np.sort(stamps))
        last = int(stamps[-1])
    times = np.concatenate(shown)
    end = max(work.end or 0, int(times[-1]) + 1)
    if not delay:
        return _Times(times, end, 0, 0)
    # the last frame in coding order takes what is left of the time, and is not shown beyond the end
    before_last = int(times[len(times) - 1 - delay])
    least = max(delay, last - before_last)
    most = least if last == times[-1] else end - before_last - 1
    return _Times(times, end, delay, min(max(int(times[delay] - times[0]), least), most))


def _time(packet: Any) -> Fraction:
    return Fraction(packet.dts if packet.dts is not None else packet.pts or 0) * packet.time_base

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
            packet.dts = int(times.decoded[index])
            # a duration that rounds to nothing on the container's clock would be guessed there
            packet.duration = max(times.duration(index, frame.stamp), shortest)
            yield packet
            index += 1


@dataclass(frozen=True)
class _Times:
    """In ticks. `shown`: when frames are shown, in order, and `end` when the last one ends; `decoded`: when frames are
    decoded, in coding order, each before it is shown; `lead`: how much earlier decoding begins."""

    shown: np.ndarray
    end: int
    decoded: np.ndarray
    lead: int

    def duration(self, index: int, stamp: int) -> int:
        """How long a frame lasts; for the last one in coding order, until all decoding took as long as all display."""
        if index == len(self.shown) - 1:
            return self.end - self.lead - int(self.decoded[index])
        after = int(np.searchsorted(self.shown, stamp, side="right"))
        return (int(self.shown[after]) if after < len(self.shown) else self.end) - stamp


def _times(work: WorkFolder) -> _Times:
    shown, coded, keys, delay = [], [], [], 0
    for stamps, are_keys in work.stamps():
        order = np.argsort(np.argsort(stamps))
        # by how many frames coding is ahead
        delay = max(delay, int((np.arange(len(stamps)) - order).max()))
        shown.append(np.sort(stamps))
        coded.append(stamps)
        keys.append(are_keys)
    times, stamps = np.concatenate(shown), np.concatenate(coded)
    end = max(work.end or 0, int(times[-1]) + 1)
    if not delay:
        return _Times(times, end, times, 0)
    decoded = np.concatenate([times[:delay], times[:-delay]])
    _shorten_key_frames(end, decoded, stamps, np.flatnonzero(np.concatenate(keys)[delay:-1]) + delay)
    # the last frame in coding order takes what is left of the time, and is not shown beyond the end
    last, last_decoded = int(stamps[-1]), int(decoded[-1])
    least = max(delay, last - last_decoded)
    most = least if last == times[-1] else end - last_decoded - 1
    lead = min(max(int(times[delay] - times[0]), least), most)
    # FFmpeg takes a late start for none where a frame decoded before 0 is shown less than `lead` after that
    decoded[:delay] = np.minimum(times[0] + np.arange(delay) * lead // delay, times[:delay]) - lead
    return _Times(times, end, decoded, lead)


def _shorten_key_frames(end: int, decoded: np.ndarray, stamps: np.ndarray, keys: np.ndarray) -> None:
    """Lowers `decoded` where a frame follows one of `keys`, in coding order: a key frame that is decoded for as long as until
    `end`, counted from when it is shown, is FFmpeg's sign that an edit of an MP4 is over; after two it reads no further.

    Times still grow: all that follows a key frame is shown later, and before `end`.
    """
    for key in keys:
        decoded[key + 1] = min(decoded[key + 1], decoded[key] + end - 1 - stamps[key])


def _time(packet: Any) -> Fraction:
    return Fraction(packet.dts if packet.dts is not None else packet.pts or 0) * packet.time_base

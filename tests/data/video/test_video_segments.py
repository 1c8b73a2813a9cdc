"""Segments on disk: what is finished is kept, joined without coding again, at the very times that frames have."""

from __future__ import annotations

import re
import threading
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from clip_files import decoded, enlarge, smooth_frames, stamps_of, twice, write_clip
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from qsci_plugins.data.video import enlarging
from qsci_plugins.data.video.encoding import EncodedFrame, Encoder, Encoding
from qsci_plugins.data.video.enlarging import code_frames, encoding_of, enlarge_clip, enlarge_segments, in_order
from qsci_plugins.data.video.joining import join_segments
from qsci_plugins.data.video.reading import VideoReader
from qsci_plugins.data.video.segments import Segment, WorkFolder, segment_frames
from qsci_plugins.errors import UserError
from qsci_plugins.machine import usable_threads


@pytest.fixture
def short_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(enlarging, "segment_frames", lambda width, height: 4)


@given(
    gaps=st.lists(st.one_of(st.integers(1, 3), st.integers(1, 90_000)), min_size=1, max_size=30),
    start=st.integers(0, 200_000),
    length=st.integers(1, 50_000),
    count=st.integers(1, 9),
)
@example(gaps=[4, 1, 1], start=0, length=4, count=3)
@example(gaps=[1, 1, 90_000, 1, 1, 40_000, 1], start=0, length=1, count=3)
@example(gaps=[*[1] * 9, 90_000, *[1] * 6, 40_000, 1], start=1000, length=1, count=8)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_times_are_written_as_they_are(
    tmp_path: Path, gaps: list[int], start: int, length: int, count: int
) -> None:
    """Through segments of any length, into containers with clocks of their own."""
    stamps = [start, *(start + int(gap) for gap in np.cumsum(gaps))]
    encoding = Encoding(64, 48, Fraction(1, 90_000), Fraction(25))
    frames = smooth_frames(9)  # of which x264 codes some out of order
    source = write_clip(tmp_path / "source.mp4", frames[:1])
    for suffix, tick in ((".mp4", 0), (".mov", 0), (".mkv", Fraction(1, 1000))):
        output = tmp_path / f"out{suffix}"
        with WorkFolder(output, {}) as work:
            for first in range(0, len(stamps), count):
                encoder, coded = Encoder(encoding), []
                for index, stamp in enumerate(stamps[first : first + count]):
                    coded += encoder.encode(frames[index], stamp)
                work.add(Segment(encoder.header, [*coded, *encoder.finish()]))
            work.finish(stamps[-1] + length)
            join_segments(work, encoding, output, source, 0, only_film=True)
            work.remove()
        got = stamps_of(output)
        assert len(got) == len(stamps)
        assert max(abs(time - stamp / 90_000) for time, stamp in zip(got, stamps, strict=True)) <= tick
        if suffix == ".mkv" and min(gaps) < 180:  # frames share a millisecond
            continue
        with VideoReader(output) as reader:
            list(reader.timed())
            assert abs(reader.end * reader.time_base - Fraction(stamps[-1] + length, 90_000)) <= 2 * tick


@pytest.mark.usefixtures("short_segments")
@pytest.mark.parametrize("stop", [1, 4, 6, 11])
def test_an_interrupted_run_goes_on_and_ends_equal(tmp_path: Path, stop: int) -> None:
    clip = write_clip(tmp_path / "a.mp4", smooth_frames(13), sounds=[("aac", "eng")])
    enlarge(clip, tmp_path / "whole.mp4")
    seen: list[int] = []

    def failing(frame: np.ndarray) -> np.ndarray:
        if len(seen) == stop:
            raise KeyboardInterrupt
        seen.append(1)
        return twice(frame)

    with pytest.raises(KeyboardInterrupt):
        enlarge(clip, tmp_path / "b.mp4", failing)
    assert not (tmp_path / "b.mp4").exists()
    again: list[int] = []
    enlarge(clip, tmp_path / "b.mp4", lambda frame: (again.append(1), twice(frame))[1])
    assert len(again) <= 13 - (stop - 1) // 4 * 4  # whole segments are not done again
    for got, expected in zip(decoded(tmp_path / "b.mp4"), decoded(tmp_path / "whole.mp4"), strict=True):
        assert np.array_equal(got, expected)
    assert (tmp_path / "b.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.mp4", "b.mp4", "whole.mp4"]


@pytest.mark.usefixtures("short_segments")
def test_segments_that_are_coded_elsewhere_are_the_same(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mp4", smooth_frames(13), stamps=[3 * number for number in range(13)])
    shown: list[int] = []
    works = []
    for name in ("here.mp4", "there.mp4"):
        with VideoReader(clip) as reader:
            encoding = encoding_of(reader, 2)
            work = WorkFolder(tmp_path / name, {})
            if name == "here.mp4":
                enlarge_clip(reader, twice, encoding, work)
            else:
                enlarge_segments(
                    reader,
                    lambda pieces, encoding=encoding: (code_frames(frames, twice, encoding) for frames in pieces),
                    encoding,
                    work,
                    on_segment=shown.append,
                )
            works.append((list(work.segments()), work.counts, work.end))
    assert works[0] == works[1]
    assert shown == works[0][1] == [4, 4, 4, 1]
    with pytest.raises(ValueError, match="a segment has frames"):
        code_frames([], twice, encoding)


def test_threads_that_are_named_code_as_those_that_x264_takes() -> None:
    """Machines of a cluster have other cores; the codes of a clip depend on those of one."""
    frames = smooth_frames(3, 480, 640)
    coded = {}
    for threads in (0, usable_threads(), usable_threads() + 1):
        encoder = Encoder(Encoding(640, 480, Fraction(1, 25), Fraction(25), threads=threads))
        units = [unit for index, frame in enumerate(frames) for unit in encoder.encode(frame, index)]
        coded[threads] = [*units, *encoder.finish()]
    assert coded[0] == coded[usable_threads()]
    assert coded[0] != coded[usable_threads() + 1]
    assert Encoding(640, 480, Fraction(1, 25), Fraction(25)).threads == usable_threads()


@pytest.mark.usefixtures("short_segments")
def test_joining_codes_nothing_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = write_clip(tmp_path / "a.mp4", smooth_frames(9))
    with VideoReader(clip) as reader:
        encoding = encoding_of(reader, 2)
        work = WorkFolder(tmp_path / "b.mp4", {})
        enlarge_clip(reader, twice, encoding, work)
    coded = [unit for segment in work.segments() for frame in segment.frames for unit in units_of(frame.data)]
    assert work.counts == [4, 4, 1]
    join_segments(work, encoding, tmp_path / "b.mp4", clip, 0)
    with av.open(str(tmp_path / "b.mp4")) as container:
        written = [unit for packet in container.demux(video=0) for unit in prefixed_units_of(bytes(packet))]
    assert written == coded


def units_of(data: bytes) -> list[bytes]:
    """H.264's units between start codes."""
    return [unit for unit in re.split(rb"\x00{2,3}\x01", data) if unit]


def prefixed_units_of(data: bytes) -> list[bytes]:
    """H.264's units as MP4 holds them, each after its length."""
    units = []
    while data:
        end = 4 + int.from_bytes(data[:4], "big")
        units.append(data[4:end])
        data = data[end:]
    return units


def test_segments_of_another_origin_and_damaged_ones_are_not_used(tmp_path: Path) -> None:
    output = tmp_path / "a.mp4"
    segment = Segment(b"head", [EncodedFrame(0, True, b"abc"), EncodedFrame(5, False, b"d")])
    with WorkFolder(output, {"clip": 1}) as work:
        for _ in range(3):
            work.add(segment)
        work.finish(9)
    with WorkFolder(output, {"clip": 1}) as work:
        assert (work.counts, work.end) == ([2, 2, 2], 9)
        assert list(work.segments()) == [segment] * 3
    file = sorted(work.path.glob("*.npz"))[1]
    file.write_bytes(file.read_bytes()[:-40])
    with WorkFolder(output, {"clip": 1}) as work:
        assert (work.counts, work.end) == ([2], None)
    with WorkFolder(output, {"clip": 2}) as work:
        assert (work.counts, work.end) == ([], None)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name", ["🎬" * 60 + ".mp4", "a" * 251 + ".mp4", b"\xff.mp4".decode("utf8", "surrogateescape")]
)
def test_any_name_has_a_work_folder(tmp_path: Path, name: str) -> None:
    with WorkFolder(tmp_path / name, {}) as work:
        work.add(Segment(b"", [EncodedFrame(0, True, b"a")]))
        assert work.path.is_dir()


def test_segments_hold_about_as_many_pixels() -> None:
    assert segment_frames(128, 96) == 120
    assert segment_frames(3840, 2160) == 16
    assert segment_frames(15360, 8640) == 8


@given(st.lists(st.integers(), max_size=30), st.integers(1, 4))
@settings(deadline=None, max_examples=30)
def test_results_come_in_order(items: list[int], workers: int) -> None:
    assert list(in_order(lambda item: item + 1, items, workers)) == [item + 1 for item in items]


def test_frames_ahead_are_few() -> None:
    fetched = 0

    def source() -> object:
        nonlocal fetched
        for _ in range(20):
            fetched += 1
            yield fetched

    running, most, lock = 0, 0, threading.Lock()

    def work(item: int) -> int:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.002)
        with lock:
            running -= 1
        return item

    for result in in_order(work, source(), 2):
        assert fetched <= result + 3
    assert most <= 2


def test_where_the_disk_refuses(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mp4", smooth_frames(2))
    with pytest.raises(UserError, match="cannot write"):
        enlarge(clip, tmp_path / "none" / "b.mp4")

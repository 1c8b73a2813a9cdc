"""Time stamps, lengths and orientation of clips as they are read."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from clip_files import smooth_frames, turn, write_clip
from hypothesis import given
from hypothesis import strategies as st

from qsci_plugins.data.video.clock import SteadyClock
from qsci_plugins.data.video.orientation import Orientation
from qsci_plugins.data.video.reading import VideoReader
from qsci_plugins.errors import UserError


@given(st.lists(st.one_of(st.none(), st.integers(-(10**9), 10**12)), max_size=60), st.integers(1, 5000))
def test_a_clock_only_grows(stamps: list[int | None], step: int) -> None:
    clock = SteadyClock(step, 1000)
    times = [clock(stamp) for stamp in stamps]
    assert all(before < after for before, after in pairwise(times))


@given(st.lists(st.integers(0, 10**9), unique=True, max_size=60))
def test_a_clock_changes_nothing_that_grows(stamps: list[int]) -> None:
    clock = SteadyClock(40, 1000)
    assert [clock(stamp) for stamp in sorted(stamps)] == sorted(stamps)


def test_time_goes_on_where_a_clock_is_set_anew() -> None:
    clock = SteadyClock(40, 1000)
    assert [clock(stamp) for stamp in (90_000, 90_040, 80, 120, None, 119, 240)] == [
        *(90_000, 90_040),
        *(90_080, 90_120, 90_160, 90_161, 90_240),
    ]


@pytest.mark.parametrize(("name", "base"), [("a.mp4", 12800), ("a.mkv", 1000), ("a.mov", 600)])
def test_every_time_stamp_is_read(tmp_path: Path, name: str, base: int) -> None:
    stamps = [base * tenths // 10 for tenths in (7, 8, 12, 13, 33, 34)]
    write_clip(tmp_path / name, smooth_frames(6), stamps, Fraction(1, base))
    with VideoReader(tmp_path / name) as reader:
        times = [frame.stamp * reader.time_base for frame in reader.timed()]
        assert times == [Fraction(stamp, base) for stamp in stamps]
        assert reader.end * reader.time_base > times[-1]


@pytest.mark.parametrize("codec", ["mpeg4", "libx264"])
def test_avi_tells_no_times_but_its_frames_are_even(tmp_path: Path, codec: str) -> None:
    options = {"bf": "2", "b": "4000000"} if codec == "mpeg4" else None
    write_clip(tmp_path / "a.avi", smooth_frames(14), codec=codec, options=options)
    with VideoReader(tmp_path / "a.avi") as reader:
        times = [frame.stamp * reader.time_base for frame in reader.timed()]
    assert [time - times[0] for time in times] == [Fraction(index, 25) for index in range(14)]


def test_a_few_bytes_that_ask_for_gigabytes_are_refused(tmp_path: Path) -> None:
    size = (16_000).to_bytes(2, "little") * 2
    frame = b"," + bytes(4) + size + b"\0" + b"\x02\x02\x4c\x01\x00;"
    (tmp_path / "a.gif").write_bytes(b"GIF89a" + size + b"\x80\0\0" + bytes(6) + frame)
    with pytest.raises(UserError, match="16000x16000 pixels"):
        VideoReader(tmp_path / "a.gif")


def test_a_gif_keeps_its_delays(tmp_path: Path) -> None:
    from PIL import Image

    pictures = [Image.fromarray(frame).quantize(64) for frame in smooth_frames(4)]
    delays = [100, 500, 30, 250]
    pictures[0].save(tmp_path / "a.gif", save_all=True, append_images=pictures[1:], duration=delays)
    with VideoReader(tmp_path / "a.gif") as reader:
        times = [frame.stamp * reader.time_base for frame in reader.timed()]
        assert [float(time) for time in times] == [0, 0.1, 0.6, 0.63]
        assert float(reader.end * reader.time_base) == pytest.approx(0.88)


def test_skipped_frames_cost_no_conversion_and_change_no_other(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.mp4", smooth_frames(9))
    with VideoReader(tmp_path / "a.mp4") as whole, VideoReader(tmp_path / "a.mp4") as rest:
        frames, last = list(whole.timed()), list(rest.timed(6))
    assert [frame.stamp for frame in last] == [frame.stamp for frame in frames[6:]]
    assert all(np.array_equal(a.pixels, b.pixels) for a, b in zip(last, frames[6:], strict=True))


def test_interlaced_frames_are_merged_one_for_one(tmp_path: Path) -> None:
    """A bar that moves between the fields has combs; afterwards neighbouring rows agree."""
    frames = []
    for index in range(10):
        frame = np.full((96, 128, 3), 30, np.uint8)
        frame[0::2, 8 * index : 8 * index + 24] = 220
        frame[1::2, 8 * index + 4 : 8 * index + 28] = 220
        frames.append(frame)
    options = {"b": "20000000"}
    write_clip(tmp_path / "a.mpg", frames, codec="mpeg2video", interlaced=True, options=options)
    write_clip(tmp_path / "b.mpg", frames, codec="mpeg2video", options=options)

    def comb(frame: np.ndarray) -> float:
        rows = frame[..., 1].astype(float)
        return float(np.abs(rows[1:-1] - (rows[:-2] + rows[2:]) / 2).mean())

    with VideoReader(tmp_path / "a.mpg") as merged, VideoReader(tmp_path / "b.mpg") as combed:
        seen, raw = list(merged.timed()), list(combed.timed())
        assert (merged.is_interlaced, combed.is_interlaced) == (True, False)
    assert [frame.stamp for frame in seen] == [frame.stamp for frame in raw]
    assert np.mean([comb(frame.pixels) for frame in seen]) < 0.4 * np.mean([comb(frame.pixels) for frame in raw])


IDENTITY = (1, 0, 0, 1)
MATRICES = {
    "upright": (IDENTITY, lambda image: image),
    "clockwise": ((0, 1, -1, 0), lambda image: np.rot90(image, -1)),
    "upside down": ((-1, 0, 0, -1), lambda image: np.rot90(image, 2)),
    "counter-clockwise": ((0, -1, 1, 0), lambda image: np.rot90(image, 1)),
    "left for right": ((-1, 0, 0, 1), lambda image: image[:, ::-1]),
    "top for bottom": ((1, 0, 0, -1), lambda image: image[::-1]),
    "transposed": ((0, 1, 1, 0), lambda image: image.swapaxes(0, 1)),
}


@pytest.mark.parametrize("name", MATRICES)
def test_frames_are_turned_as_the_file_says(tmp_path: Path, name: str) -> None:
    matrix, expected = MATRICES[name]
    write_clip(tmp_path / "a.mp4", smooth_frames(1), aspect=Fraction(4, 3))
    turn(tmp_path / "a.mp4", matrix)
    with av.open(str(tmp_path / "a.mp4")) as clip:
        stored = next(clip.decode(video=0)).to_ndarray(format="rgb24")
    with VideoReader(tmp_path / "a.mp4") as reader:
        seen = next(iter(reader))
        assert reader.size == seen.shape[1::-1]
        assert reader.aspect == (Fraction(3, 4) if seen.shape[0] == 64 else Fraction(4, 3))
    assert np.abs(seen.astype(int) - expected(stored)).mean() < 6
    assert Orientation(1).aspect(Fraction(0)) == 1

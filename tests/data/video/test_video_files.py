"""Video files one frame at a time, with their audio, and raw streams."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qsci_plugins.data.video.raw import raw_frames
from qsci_plugins.data.video.reading import VideoReader
from qsci_plugins.data.video.writing import VideoWriter
from qsci_plugins.errors import UserError


def frames(count: int, height: int = 48, width: int = 64) -> list[np.ndarray]:
    """Smooth, ever brighter."""
    y, x = np.mgrid[:height, :width]
    return [
        np.stack([(x + 10 * i) % 200, (y + 5 * i) % 200, np.full_like(x, 20 * i)], -1).astype(np.uint8)
        for i in range(count)
    ]


def write_clip(file: Path, count: int = 6, *, audio: bool = False) -> None:
    with av.open(str(file), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(10))
        stream.width, stream.height, stream.pix_fmt, stream.options = 64, 48, "yuv420p", {"crf": "10"}
        sound = container.add_stream("aac", rate=8000) if audio else None
        for frame in frames(count):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
        if sound is not None:
            tone = np.sin(np.arange(4096) / 5).astype(np.float32)[None]
            samples = av.AudioFrame.from_ndarray(tone, format="fltp", layout="mono")
            samples.sample_rate = 8000
            container.mux(sound.encode(samples))
            container.mux(sound.encode())


def test_frames_come_back(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "a.mp4", Fraction(10)) as writer:
        for frame in frames(5):
            writer.write(frame)
    reader = VideoReader(tmp_path / "a.mp4")
    assert (reader.rate, reader.frames) == (10, 5)
    for got, expected in zip(reader, frames(5), strict=True):
        assert np.abs(got.astype(int) - expected).mean() < 6
    assert [file.name for file in tmp_path.iterdir()] == ["a.mp4"]


def test_a_failure_leaves_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"old")

    def fail() -> None:
        with VideoWriter(tmp_path / "a.mp4", Fraction(10)) as writer:
            writer.write(frames(1)[0])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"old"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [("a.mp4", b"", "cannot read"), ("a.mp4", b"\0" * 999, "cannot read"), ("none.mp4", None, "No such file")],
)
def test_what_is_no_video(tmp_path: Path, name: str, content: bytes | None, said: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=said):
        VideoReader(tmp_path / name)


def test_a_damaged_clip_says_where(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.mkv", 30)
    whole = (tmp_path / "a.mkv").read_bytes()
    (tmp_path / "a.mkv").write_bytes(whole[:600])
    with pytest.raises(UserError, match=r"a\.mkv"):
        list(VideoReader(tmp_path / "a.mkv"))


def test_a_format_that_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"\.mp4, \.mkv, \.mov"):
        VideoWriter(tmp_path / "a.ogg", Fraction(10))


@given(st.integers(0, 3), st.integers(1, 9), st.integers(1, 9), st.integers(0, 5))
@settings(max_examples=30, deadline=None)
def test_raw_frames_are_whole(count: int, width: int, height: int, extra: int) -> None:
    size = width * height * 3
    data = np.random.default_rng(0).bytes(count * size + extra % size)
    stream = raw_frames(io.BytesIO(data), width, height)
    for index in range(count):
        assert next(stream).tobytes() == data[index * size : (index + 1) * size]
    if extra % size:
        with pytest.raises(UserError, match=f"inside frame {count + 1}"):
            next(stream)
    else:
        assert next(stream, None) is None

"""Colours are computed by the matrix and range that a clip is tagged with, and coded with stated ones."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from clip_files import decoded, smooth_frames, write_clip

from qsci_plugins.data.video.color import ColorTags, FromRGB, ToRGB
from qsci_plugins.data.video.reading import VideoReader
from qsci_plugins.data.video.refusals import check_keepable
from qsci_plugins.data.video.writing import VideoWriter
from qsci_plugins.errors import UserError

#: luma weights of red and blue of each matrix (H.273)
WEIGHTS = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 6: (0.299, 0.114), 7: (0.212, 0.087)}


def rgb_of(frame: av.VideoFrame, matrix: int, range_: int) -> np.ndarray:
    """The formula of H.273, every chroma sample for all pixels that it covers."""
    planes = []
    for plane in frame.planes:
        samples = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: plane.height, : plane.width]
        planes.append(
            samples.astype(float).repeat(frame.height // plane.height, 0).repeat(frame.width // plane.width, 1)
        )
    low, luma, chroma = (16, 219, 224) if range_ == 1 else (0, 255, 255)
    y, cb, cr = (planes[0] - low) / luma, (planes[1] - 128) / chroma, (planes[2] - 128) / chroma
    red, blue = WEIGHTS[matrix]
    r, b = y + 2 * (1 - red) * cr, y + 2 * (1 - blue) * cb
    g = (y - red * r - blue * b) / (1 - red - blue)
    return np.clip(np.stack([r, g, b], -1), 0, 1) * 255


@pytest.mark.parametrize("range_", [1, 2])
@pytest.mark.parametrize("matrix", WEIGHTS)
@pytest.mark.parametrize("form", ["yuv420p", "yuv422p", "yuv444p"])
def test_rgb_is_the_tagged_matrix_of_the_samples(tmp_path: Path, matrix: int, range_: int, form: str) -> None:
    write_clip(tmp_path / "a.mkv", smooth_frames(1), tags=(1, 1, matrix, range_), form=form)
    with VideoReader(tmp_path / "a.mkv") as reader:
        assert (reader.color.matrix, reader.color.range) == (matrix, range_)
        expected = rgb_of(reader.first, matrix, range_)
        assert np.abs(next(iter(reader)) - expected).max() <= 1.5


@pytest.mark.parametrize("range_", [1, 2])
@pytest.mark.parametrize("matrix", WEIGHTS)
def test_repeated_pixels_give_back_the_samples(tmp_path: Path, matrix: int, range_: int) -> None:
    tags = ColorTags(1, 1, matrix, range_)
    write_clip(tmp_path / "a.mkv", smooth_frames(1), tags=(1, 1, matrix, range_))
    with VideoReader(tmp_path / "a.mkv") as reader:
        small = reader.first
        large = FromRGB(tags)(ToRGB(tags)(small).repeat(2, 0).repeat(2, 1))
    for before, after in zip(small.planes, large.planes, strict=True):
        expected = np.frombuffer(before, np.uint8).reshape(-1, before.line_size)[: before.height, : before.width]
        got = np.frombuffer(after, np.uint8).reshape(-1, after.line_size)[: after.height, : after.width]
        difference = np.abs(got.astype(int) - expected.repeat(2, 0).repeat(2, 1))
        assert difference.mean() <= (0.1 if range_ == 1 else 0.6)
        assert difference.max() <= 3


def test_ten_bits_are_read_to_the_nearest_of_eight(tmp_path: Path) -> None:
    frames = smooth_frames(1)
    write_clip(tmp_path / "a.mkv", frames, tags=(1, 1, 1, 1), form="yuv444p10le")
    with VideoReader(tmp_path / "a.mkv") as reader:
        assert np.abs(next(iter(reader)).astype(int) - frames[0]).mean() < 2


@pytest.mark.parametrize(("height", "matrix"), [(48, 6), (720, 1)])
def test_what_is_not_tagged_is_read_as_players_do(tmp_path: Path, height: int, matrix: int) -> None:
    write_clip(tmp_path / "a.mp4", smooth_frames(1, height, height * 16 // 9 // 2 * 2))
    with VideoReader(tmp_path / "a.mp4") as reader:
        assert reader.color == ColorTags(matrix, matrix, matrix, 1)


@pytest.mark.parametrize(
    ("tags", "form"),
    [
        ((9, 16, 9, 1), "yuv420p10le"),
        ((9, 18, 9, 1), "yuv420p10le"),
        ((9, 14, 9, 1), "yuv420p"),
        ((9, 1, 1, 1), "yuv420p"),
    ],
)
def test_hdr_is_refused_in_one_line(tmp_path: Path, tags: tuple[int, int, int, int], form: str) -> None:
    write_clip(tmp_path / "a.mkv", smooth_frames(1), tags=tags, form=form)
    with VideoReader(tmp_path / "a.mkv") as reader, pytest.raises(UserError, match=r"HDR or bt2020 .* bt709") as error:
        check_keepable(reader)
    assert "\n" not in str(error.value)


def test_an_unknown_matrix_is_refused(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.mkv", smooth_frames(1), tags=(1, 1, 8, 1))
    with VideoReader(tmp_path / "a.mkv") as reader, pytest.raises(UserError, match="matrix"):
        check_keepable(reader)


@pytest.mark.parametrize("alpha", [200, 255])
@pytest.mark.parametrize(("name", "codec", "form"), [("a.mkv", "ffv1", "yuva420p"), ("a.mov", "qtrle", "argb")])
def test_transparency_is_refused_where_there_is_some(
    tmp_path: Path, name: str, codec: str, form: str, alpha: int
) -> None:
    frames = [np.dstack([frame, np.full(frame.shape[:2], 255, np.uint8)]) for frame in smooth_frames(3)]
    frames[2][5, 7, 3] = alpha
    write_clip(tmp_path / name, frames, codec=codec, form=form)
    with VideoReader(tmp_path / name) as reader:
        if alpha == 255:
            check_keepable(reader)
            assert len(list(reader)) == 3
        else:
            with pytest.raises(UserError, match="transparent in frame 3"):
                check_keepable(reader)


def test_vp9_keeps_transparency_beside_the_film(tmp_path: Path) -> None:
    frames = [np.dstack([frame, np.full(frame.shape[:2], 9, np.uint8)]) for frame in smooth_frames(2)]
    write_clip(tmp_path / "a.webm", frames, codec="libvpx-vp9", form="yuva420p")
    with VideoReader(tmp_path / "a.webm") as reader, pytest.raises(UserError, match="transparent"):
        check_keepable(reader)


def test_written_pictures_are_tagged(tmp_path: Path) -> None:
    from fractions import Fraction

    frame = np.zeros((48, 64, 3), np.uint8) + np.array([200, 40, 90], np.uint8)
    with VideoWriter(tmp_path / "a.mp4", Fraction(10)) as writer:
        writer.write(frame)
    with av.open(str(tmp_path / "a.mp4")) as clip:
        context = clip.streams.video[0].codec_context
        assert (context.color_primaries, context.color_trc, context.colorspace, context.color_range) == (1, 1, 1, 1)
    assert np.abs(decoded(tmp_path / "a.mp4")[0].astype(int) - frame).mean() < 2.5

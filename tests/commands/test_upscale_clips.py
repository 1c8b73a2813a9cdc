"""`qsci upscale` of clips through an exact network: every pixel and every time stamp is known."""

from __future__ import annotations

import re
import shutil
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from clip_files import decoded, smooth_frames, stamps_of, turn, write_clip
from exact_network import exact_upscaler, nearest
from noted import Notes

from qsci_plugins import UserError, upscale_video
from qsci_plugins.cli import main
from qsci_plugins.commands.upscale_video import VideoPreview, preview_video

#: the clips of reported bugs, where they lie beside the repository
SHARED = Path(__file__).parents[2].parent / "shared" / "cases" / "videos"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exact_upscaler(tmp_path_factory.mktemp("exact") / "model")


def check_values(clip: Path, output: Path, tick: float) -> None:
    """Within 1.5 levels of the enlarged source, as players show both, and at its times."""
    before, after = decoded(clip), decoded(output)
    assert len(before) == len(after)
    assert max(abs(a - b) for a, b in zip(stamps_of(clip), stamps_of(output), strict=True)) <= tick + 1e-9
    errors = [np.abs(nearest(a).astype(int) - b).mean() for a, b in zip(before, after, strict=True)]
    assert np.mean(errors) <= 1.5


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared cases are not here")
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
@pytest.mark.parametrize(
    "name", ["clip.ts", "hd709.mp4", "opus.mkv", "pause.mp4", "phone.mp4", "sar.mp4", "twoaudio.mkv", "vfr.mkv"]
)
def test_reported_clips(model: Path, tmp_path: Path, name: str, suffix: str) -> None:
    output = tmp_path / f"big{suffix}"
    assert main(["upscale", str(model), str(SHARED / name), "-o", str(output)]) == 0
    with av.open(str(output)) as written:
        tick = float(written.streams.video[0].time_base)
    check_values(SHARED / name, output, tick)
    assert [file.name for file in tmp_path.iterdir()] == [output.name]


@pytest.mark.parametrize(
    ("name", "codec", "container"),
    [
        *(("a.ts", "libx264", None), ("a.m2ts", "libx264", "mpegts"), ("a.mpg", "mpeg1video", None)),
        *(("a.mpeg", "mpeg2video", None), ("a.wmv", "wmv2", None), ("a.flv", "flv", None), ("a.avi", "mpeg4", None)),
        *(("a.webm", "libvpx-vp9", None), ("a.m4v", "libx264", None), ("a.3gp", "libx264", None)),
    ],
)
def test_every_kind_of_clip_is_one(model: Path, tmp_path: Path, name: str, codec: str, container: str | None) -> None:
    frames = smooth_frames(10, 96, 128)
    options = {"b": "6000000"}
    clip = write_clip(tmp_path / name, frames, codec=codec, container=container, options=options)
    assert main(["upscale", str(model), str(clip), "-o", str(tmp_path / "big.mp4")]) == 0
    check_values(clip, tmp_path / "big.mp4", 1e-4)


@pytest.mark.parametrize("tags", [(1, 1, 1, 1), (1, 1, 1, 2), (6, 6, 6, 1), (5, 6, 5, 1), (7, 7, 7, 1)])
def test_colours_are_coded_as_they_are_tagged(model: Path, tmp_path: Path, tags: tuple[int, int, int, int]) -> None:
    clip = write_clip(tmp_path / "a.mp4", smooth_frames(4), tags=tags)
    for suffix in (".mp4", ".mkv", ".mov"):
        output = upscale_video(model, clip, tmp_path / f"big{suffix}", threads=1)
        check_values(clip, output, 1e-3)
        with av.open(str(output)) as written:
            context = written.streams.video[0].codec_context
            assert (context.color_primaries, context.color_trc, context.colorspace, context.color_range) == tags


def test_what_changes_is_said_in_lines(model: Path, tmp_path: Path) -> None:
    clip = write_clip(
        *(tmp_path / "a.mkv", smooth_frames(6)), interlaced=True, sounds=[("libopus", "deu")], tags=(1, 1, 1, 1)
    )
    notes = Notes()
    upscale_video(model, clip, tmp_path / "big.mov", progress=notes)
    assert len(notes.notes) == 2
    assert "interlaced" in notes.notes[0]
    assert re.search(r"big\.mov: an audio track \(opus, deu\) becomes AAC", notes.notes[1])


@pytest.mark.parametrize(
    ("tags", "form", "said"),
    [((9, 16, 9, 1), "yuv420p10le", "HDR or bt2020"), ((9, 18, 9, 1), "yuv420p10le", "HDR or bt2020")],
)
def test_what_is_refused_is_refused_in_one_line(
    model: Path,
    tmp_path: Path,
    tags: tuple[int, int, int, int],
    form: str,
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    clip = write_clip(tmp_path / "a.mkv", smooth_frames(2), tags=tags, form=form)
    assert main(["upscale", str(model), str(clip), "-o", str(tmp_path / "big.mp4")]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert said in lines[0]
    assert [file.name for file in tmp_path.iterdir()] == ["a.mkv"]


@pytest.mark.parametrize(("fps", "shown"), [(0.123, "0.123 fps"), (42.04, "42 fps"), (1613.2, "1613 fps")])
def test_speeds_are_plain_numbers(fps: float, shown: str) -> None:
    assert str(VideoPreview(Path("big.mp4"), 50, fps, None)) == f"preview: 50 frames at {shown}"


def test_a_preview_tells_speed_and_time(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip = write_clip(tmp_path / "a.mp4", smooth_frames(100), sounds=[("aac", "eng")])
    assert main(["upscale", str(model), str(clip), "-o", str(tmp_path / "big.mp4"), "--preview", "2s"]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"preview: 50 frames at [\d.]+ fps; the whole clip takes about [\d.]+ s", printed)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.mp4", "big.preview.mp4"]
    assert stamps_of(tmp_path / "big.preview.mp4") == pytest.approx([index / 25 for index in range(50)])
    result = preview_video(model, clip, tmp_path / "big.mkv", preview=0.4)
    assert result.frames == 10
    assert result.total_seconds is not None
    assert result.total_seconds == pytest.approx(100 / result.fps, abs=2 + 20 / result.fps)


def test_a_preview_of_images_is_a_mistake(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.png").touch()
    command = ["upscale", str(model), str(tmp_path / "a.png"), "-o", str(tmp_path / "b.png"), "--preview", "2s"]
    assert main(command) == 2
    assert "--preview is for a video" in capsys.readouterr().err


def test_an_unknown_option_is_named(model: Path) -> None:
    with pytest.raises(TypeError, match="'thread'"):
        upscale_video(model, "a.mp4", "b.mp4", thread=2)


@pytest.mark.parametrize("keep", [0.3, 0.6])
def test_a_clip_that_breaks_off_leaves_nothing(model: Path, tmp_path: Path, keep: float) -> None:
    clip = write_clip(tmp_path / "a.mp4", smooth_frames(60, 96, 128), options={"x264-params": "keyint=5"})
    content = bytearray(clip.read_bytes())
    begin = content.index(b"mdat") + int(len(content) * keep)
    content[begin : begin + 3000] = b"\xff" * 3000
    clip.write_bytes(content)
    with pytest.raises(UserError, match="is damaged after frame"):
        upscale_video(model, clip, tmp_path / "big.mp4")
    assert [file.name for file in tmp_path.iterdir()] == ["a.mp4"]


def test_frames_that_change_their_size_are_refused(model: Path, tmp_path: Path) -> None:
    first = write_clip(tmp_path / "a.ts", smooth_frames(5), options={"x264-params": "keyint=1"})
    second = write_clip(tmp_path / "b.ts", smooth_frames(5, 96, 128), options={"x264-params": "keyint=1"})
    with first.open("ab") as stream, second.open("rb") as rest:
        shutil.copyfileobj(rest, stream)
    with pytest.raises(UserError, match=r"frame \d+ is 128x96 pixels, the first one 64x48"):
        upscale_video(model, first, tmp_path / "big.mp4")


def test_a_phone_turned_keeps_the_shape_of_its_pixels(model: Path, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mp4", smooth_frames(3), aspect=Fraction(4, 3))
    upright = [np.rot90(frame, -1) for frame in decoded(clip)]
    turn(clip, (0, 1, -1, 0))
    output = upscale_video(model, clip, tmp_path / "big.mp4")
    with av.open(str(output)) as written:
        frames = list(written.decode(video=0))
        assert written.streams.video[0].sample_aspect_ratio == Fraction(3, 4)
    assert {frame.rotation for frame in frames} == {0}
    for got, expected in zip(frames, upright, strict=True):
        assert np.abs(got.to_ndarray(format="rgb24").astype(int) - nearest(expected)).mean() < 4

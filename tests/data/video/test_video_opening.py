"""Clips are opened from regular files, by containers that name no other file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from clip_files import smooth_frames, write_clip

from qsci_plugins.data.video.reading import VideoReader
from qsci_plugins.errors import UserError


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("list.mp4", "ffconcat version 1.0\nfile secret.mp4\n"),
        ("list.mkv", "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nsecret.mp4\n#EXT-X-ENDLIST\n"),
        ("list.mov", "[reference]\nRef1=secret.mp4\n"),
        ("list.avi", "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nm=video 9 RTP/AVP 96\na=rtpmap:96 H264/90000\n"),
    ],
)
def test_a_list_of_other_files_is_no_clip(tmp_path: Path, name: str, content: str) -> None:
    write_clip(tmp_path / "secret.mp4", smooth_frames(2))
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match="as a video"):
        VideoReader(tmp_path / name)


def test_an_image_sequence_is_no_clip(tmp_path: Path) -> None:
    from qsci_plugins.data.images import write_image

    write_image(tmp_path / "001.png", smooth_frames(1)[0])
    for name in ("%03d.png", "001.png"):
        with pytest.raises(UserError, match="cannot read"):
            VideoReader(tmp_path / name)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.mp4")
    with pytest.raises(UserError, match="not a regular file"):
        VideoReader(tmp_path / "a.mp4")
    with pytest.raises(UserError, match="as a video: Is a directory"):
        VideoReader(tmp_path)


@pytest.mark.parametrize(
    "name",
    ["a:b.mp4", "%d.mp4", "concat:a|b.mp4", "-", "🎬" * 60 + ".mp4", b"\xff\xfe.mp4".decode("utf8", "surrogateescape")],
)
def test_any_name_is_a_file(tmp_path: Path, name: str) -> None:
    try:
        write_clip(tmp_path / "plain.mp4", smooth_frames(2)).rename(tmp_path / name)
    except OSError:
        pytest.skip("the file system does not take this name")
    with VideoReader(tmp_path / name) as reader:
        assert len(list(reader)) == 2

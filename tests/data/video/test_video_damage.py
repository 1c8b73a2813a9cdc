"""Damaged clips are read as far as they go, or refused in one line: never anything else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import pytest
from clip_files import enlarge, smooth_frames, write_clip
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qsci_plugins.data.video.reading import VideoReader
from qsci_plugins.data.video.refusals import check_keepable
from qsci_plugins.errors import UserError

KINDS: dict[str, dict[str, Any]] = {
    "a.mp4": {
        "sounds": [("aac", "eng")],
        "texts": [("mov_text", "deu", "x")],
        "chapters": [(0, 99, "a")],
        "title": "t",
    },
    "a.mkv": {"sounds": [("libopus", "deu"), ("flac", "eng")], "texts": [("subrip", "deu", "x"), ("ass", "eng", "y")]},
    "a.ts": {"sounds": [("aac", "eng")]},
    "a.avi": {"codec": "mpeg4", "sounds": [("mp3", "")]},
    "a.gif": {"codec": "gif", "form": "rgb8"},
    "a.flv": {"codec": "flv", "sounds": [("aac", "")]},
    "a.mpg": {"codec": "mpeg2video", "interlaced": True},
    "a.webm": {"codec": "libvpx-vp9"},
    "a.wmv": {"codec": "wmv2"},
    "a.mov": {"codec": "prores_ks", "form": "yuva444p10le"},
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("whole")
    return {name: write_clip(folder / name, smooth_frames(6), **kind).read_bytes() for name, kind in KINDS.items()}


@given(
    name=st.sampled_from(sorted(KINDS)),
    suffix=st.sampled_from([".mp4", ".mkv", ".mov"]),
    end=st.one_of(st.none(), st.floats(0, 1)),
    hole=st.one_of(st.none(), st.tuples(st.floats(0, 1), st.integers(1, 500))),
    changes=st.lists(st.tuples(st.floats(0, 1), st.booleans(), st.integers(0, 255)), max_size=40),
)
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_damage_is_one_line(
    whole: dict[str, bytes],
    tmp_path: Path,
    name: str,
    suffix: str,
    end: float | None,
    hole: tuple[float, int] | None,
    changes: list[tuple[float, bool, int]],
) -> None:
    av.logging.set_level(av.logging.PANIC)
    content = bytearray(whole[name])
    for place, at_start, value in changes:
        content[int(place * (min(len(content), 600) if at_start else len(content) - 1))] = value
    if hole is not None:
        begin = int(hole[0] * len(content))
        content[begin : begin + hole[1]] = b""
    if end is not None:
        content = content[: int(end * len(content))]
    clip = tmp_path / name
    clip.write_bytes(content)
    try:
        with VideoReader(clip) as reader:
            check_keepable(reader, 2)
        enlarge(clip, tmp_path / f"out{suffix}")
    except UserError as error:
        assert "\n" not in str(error)  # noqa: PT017
    (tmp_path / f"out{suffix}").unlink(missing_ok=True)

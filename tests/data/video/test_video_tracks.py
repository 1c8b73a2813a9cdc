"""What a clip holds besides its film: copied, coded again with a line that says so, or named as left out."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from clip_files import enlarge, smooth_frames, stamps_of, write_clip

LANGUAGES = {".mp4": "deu", ".mkv": "deu", ".mov": "ger"}


def tracks_of(file: Path, kind: str) -> list[tuple[str, str | None]]:
    with av.open(str(file)) as clip:
        return [(s.codec_context.name, s.metadata.get("language")) for s in clip.streams if s.type == kind]


def packets_of(file: Path, index: int) -> list[bytes]:
    with av.open(str(file)) as clip:
        return [bytes(packet) for packet in clip.demux(audio=index) if packet.size]


def sound_of(file: Path, index: int) -> tuple[float, np.ndarray]:
    """When a track begins, in seconds, and its samples at 48 kHz."""
    with av.open(str(file)) as clip:
        frames = list(clip.decode(audio=index))
        resampler = av.AudioResampler("fltp", "mono", 48000)
        start = float(frames[0].pts * frames[0].time_base)
        return start, np.concatenate([part.to_ndarray()[0] for frame in frames for part in resampler.resample(frame)])


@pytest.mark.parametrize("suffix", LANGUAGES)
@pytest.mark.parametrize("source", [".mkv", ".mp4"])
def test_all_sound_is_copied_with_its_languages(tmp_path: Path, source: str, suffix: str) -> None:
    clip = write_clip(tmp_path / f"a{source}", smooth_frames(25), sounds=[("aac", "eng"), ("aac", "deu")])
    assert enlarge(clip, tmp_path / f"b{suffix}") == []
    assert tracks_of(tmp_path / f"b{suffix}", "audio") == [("aac", "eng"), ("aac", LANGUAGES[suffix])]
    for index in (0, 1):
        assert packets_of(tmp_path / f"b{suffix}", index) == packets_of(clip, index) != []
    assert stamps_of(tmp_path / f"b{suffix}") == pytest.approx(stamps_of(clip), abs=1e-3)


@pytest.mark.parametrize("codec", ["libopus", "flac"])
def test_sound_that_quicktime_cannot_hold_becomes_aac_and_a_line(tmp_path: Path, codec: str) -> None:
    clip = write_clip(tmp_path / "a.mkv", smooth_frames(25), sounds=[("aac", "eng"), (codec, "deu")])
    notes = enlarge(clip, tmp_path / "b.mov")
    assert len(notes) == 1
    assert codec.removeprefix("lib") in notes[0]
    assert "becomes AAC" in notes[0]
    assert tracks_of(tmp_path / "b.mov", "audio") == [("aac", "eng"), ("aac", "ger")]
    (began, before), (begins, after) = sound_of(clip, 1), sound_of(tmp_path / "b.mov", 1)
    assert begins == pytest.approx(began, abs=0.03)
    assert abs(begins + best_lag(before, after) / 48000 - began) < 0.002
    for suffix in (".mp4", ".mkv"):
        assert enlarge(clip, tmp_path / f"b{suffix}") == []
        assert tracks_of(tmp_path / f"b{suffix}", "audio")[1][0] == codec.removeprefix("lib")


def best_lag(before: np.ndarray, after: np.ndarray) -> int:
    """By how many samples the second begins later on."""
    size = 16384
    product = np.fft.irfft(np.fft.rfft(after[:size], 2 * size) * np.conj(np.fft.rfft(before[:size], 2 * size)))
    lag = int(np.argmax(product))
    return lag if lag < size else lag - 2 * size


@pytest.mark.parametrize("suffix", LANGUAGES)
@pytest.mark.parametrize(
    ("source", "codec", "line"), [(".mkv", "subrip", "Grüße"), (".mp4", "mov_text", "Grüße"), (".mkv", "ass", "Grüße")]
)
def test_subtitles_keep_text_time_and_language(tmp_path: Path, source: str, codec: str, line: str, suffix: str) -> None:
    clip = write_clip(tmp_path / f"a{source}", smooth_frames(25), texts=[(codec, "deu", line)])
    assert enlarge(clip, tmp_path / f"b{suffix}") == []
    assert [language for _, language in tracks_of(tmp_path / f"b{suffix}", "subtitle")] == [LANGUAGES[suffix]]
    with av.open(str(tmp_path / f"b{suffix}")) as written:
        shown: list[tuple[float, float, Any]] = [
            (float(packet.pts * packet.time_base), float(packet.duration * packet.time_base), text.dialogue.decode())
            for packet in written.demux(subtitles=0)
            for text in packet.decode()
        ]
    assert shown == [(pytest.approx(0.1, abs=1e-3), pytest.approx(0.2, abs=1e-3), line)]


@pytest.mark.parametrize("suffix", LANGUAGES)
@pytest.mark.parametrize("source", [".mkv", ".mp4"])
def test_title_and_chapters_survive(tmp_path: Path, source: str, suffix: str) -> None:
    chapters = [(0, 400, "Früh"), (400, 1000, "later")]
    clip = write_clip(tmp_path / f"a{source}", smooth_frames(25), title="Ein Film", chapters=chapters)
    assert enlarge(clip, tmp_path / f"b{suffix}") == []
    with av.open(str(tmp_path / f"b{suffix}")) as written:
        assert written.metadata["title"] == "Ein Film"
        found = [
            (*(round(float(c[key] * c["time_base"]) * 1000) for key in ("start", "end")), c["metadata"]["title"])
            for c in written.chapters()
        ]
    assert found == chapters


def test_what_cannot_be_held_is_named(tmp_path: Path) -> None:
    clip = tmp_path / "a.mkv"
    with av.open(str(clip), "w") as target:
        film = target.add_stream("libx264", rate=25)
        film.width, film.height, film.pix_fmt = 64, 48, "yuv420p"
        target.add_attachment("font.ttf", "font/ttf", b"letters")
        target.metadata.update({"title": "x", "MOOD": "blue"})
        for index in range(3):
            frame = av.VideoFrame(64, 48, "yuv420p")
            frame.pts = index
            target.mux(film.encode(frame))
        target.mux(film.encode())
    notes = enlarge(clip, tmp_path / "b.mp4")
    assert any("attachment" in note for note in notes)
    assert any("MOOD" in note for note in notes)
    assert all("\n" not in note for note in notes)
    assert enlarge(clip, tmp_path / "b.mkv") == []


@pytest.mark.parametrize(("source", "base"), [("a.mp4", 12800), ("a.mkv", 1000), ("a.ts", 90000), ("a.flv", 1000)])
@pytest.mark.parametrize("suffix", LANGUAGES)
def test_a_film_that_begins_late_stays_in_step_with_the_sound(
    tmp_path: Path, source: str, base: int, suffix: str
) -> None:
    stamps = [base * 13 // 10 + base // 25 * index for index in range(8)]
    clip = write_clip(tmp_path / source, smooth_frames(8), stamps, Fraction(1, base), sounds=[("aac", "eng")])
    output = tmp_path / f"b{suffix}"
    enlarge(clip, output)
    tick = 1e-3 if suffix == ".mkv" else 1 / base
    assert max(abs(a - b) for a, b in zip(stamps_of(output), stamps_of(clip), strict=True)) <= tick + 1e-9
    (began, before), (begins, after) = sound_of(clip, 0), sound_of(output, 0)
    assert abs(begins + best_lag(before, after) / 48000 - began) < 1.1e-3


def test_a_broadcast_that_starts_at_some_hour_starts_at_0(tmp_path: Path) -> None:
    stamps = [90000 * 3600 + 3600 * index for index in range(8)]
    clip = write_clip(tmp_path / "a.ts", smooth_frames(8), stamps, Fraction(1, 90000))
    enlarge(clip, tmp_path / "b.mp4")
    assert stamps_of(tmp_path / "b.mp4") == pytest.approx([index / 25 for index in range(8)], abs=1 / 90000)


def test_the_shape_of_pixels_is_kept(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mp4", smooth_frames(2), aspect=Fraction(32, 27), tags=(1, 1, 1, 1))
    for suffix in LANGUAGES:
        enlarge(clip, tmp_path / f"b{suffix}")
        with av.open(str(tmp_path / f"b{suffix}")) as written:
            film = written.streams.video[0]
            assert film.sample_aspect_ratio == Fraction(32, 27)
            context = film.codec_context
            assert (context.color_primaries, context.color_trc, context.colorspace, context.color_range) == (1, 1, 1, 1)

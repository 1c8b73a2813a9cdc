"""Small clips of every kind: time stamps, tags, sound, subtitles and chapters are the test's choice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.filter import Graph

from qsci_plugins.data.video.enlarging import encoding_of, enlarge_clip
from qsci_plugins.data.video.joining import join_segments
from qsci_plugins.data.video.reading import VideoReader
from qsci_plugins.data.video.segments import WorkFolder

__all__ = ["decoded", "enlarge", "smooth_frames", "stamps_of", "turn", "twice", "write_clip"]


def smooth_frames(count: int, height: int = 48, width: int = 64) -> list[np.ndarray]:
    """Coloured gradients (H,W,3) that move."""
    y, x = np.mgrid[:height, :width]
    return [
        np.stack([(x * 3 + 9 * i) % 200 + 20, (y * 4 + 5 * i) % 200 + 20, (x + y + 20 * i) % 256], -1).astype(np.uint8)
        for i in range(count)
    ]


def write_clip(
    file: Path,
    frames: Sequence[np.ndarray],
    stamps: Sequence[int] | None = None,
    time_base: Fraction = Fraction(1, 25),
    *,
    codec: str = "libx264",
    form: str = "yuv420p",
    tags: tuple[int, int, int, int] | None = None,
    aspect: Fraction | None = None,
    sounds: Sequence[tuple[str, str]] = (),
    texts: Sequence[tuple[str, str, str]] = (),
    title: str | None = None,
    chapters: Sequence[tuple[int, int, str]] = (),
    interlaced: bool = False,
    options: dict[str, str] | None = None,
    container: str | None = None,
) -> Path:
    """Writes a clip. `tags`: primaries, transfer, matrix, range. `sounds`: codec and language; `texts`: codec, language and
    a line shown from 0.1 to 0.3 s; `chapters`: begin and end in ms, title."""
    with av.open(str(file), "w", format=container) as target:
        film = target.add_stream(codec, rate=Fraction(25), options=options or {})
        film.width, film.height, film.pix_fmt = frames[0].shape[1], frames[0].shape[0], form
        context: Any = film.codec_context
        context.time_base = time_base
        if codec == "libx264":
            context.options = {"crf": "4", **(options or {})}
        if interlaced:
            context.flags |= (1 << 18) | (1 << 29)
        if aspect is not None:
            context.sample_aspect_ratio = aspect
        matrix, range_ = (5, 1) if tags is None else tags[2:]
        if tags is not None:
            context.color_primaries, context.color_trc, context.colorspace, context.color_range = tags
        tracks = [_sound(target, *sound) for sound in sounds]
        lines = [_text(target, *text) for text in texts]
        if title is not None:
            target.metadata["title"] = title
        if chapters:
            target.set_chapters(
                [
                    {"id": i, "start": b, "end": e, "time_base": Fraction(1, 1000), "metadata": {"title": name}}
                    for i, (b, e, name) in enumerate(chapters)
                ]
            )
        for index, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgba" if pixels.shape[2] == 4 else "rgb24")
            if form != frame.format.name:
                frame = frame.reformat(format=form, dst_colorspace=matrix, dst_color_range=range_)
            frame.pts, frame.time_base = index if stamps is None else stamps[index], time_base
            if interlaced:
                frame = _top_field_first(frame)
            target.mux(film.encode(frame))
        target.mux(film.encode())
        for packets in (*tracks, *lines):
            for packet in packets:
                target.mux(packet)
    return file


def decoded(file: Path) -> list[np.ndarray]:
    """The frames as players show them: by their tags."""
    with av.open(str(file)) as clip:
        return [frame.to_ndarray(format="rgb24") for frame in clip.decode(video=0)]


def stamps_of(file: Path) -> list[float]:
    """When frames are shown, in seconds."""
    with av.open(str(file)) as clip:
        return [float(frame.pts * frame.time_base) for frame in clip.decode(video=0)]


def twice(frame: np.ndarray) -> np.ndarray:
    """Every pixel as two by two."""
    return frame.repeat(2, 0).repeat(2, 1)


def enlarge(clip: Path, output: Path, function: Callable[[np.ndarray], np.ndarray] = twice) -> list[str]:
    """Writes a clip twice as large, going on with what an earlier call left; returns what is noted."""
    with VideoReader(clip) as reader:
        encoding = encoding_of(reader, 2)
        with WorkFolder(output, {"clip": clip.name}) as work:
            if work.end is None:
                enlarge_clip(reader, function, encoding, work)
            notes = join_segments(work, encoding, output, clip, reader.stream.index, reader.origin)
            work.remove()
    return notes


def turn(file: Path, matrix: tuple[int, int, int, int]) -> None:
    """Writes a display matrix into the header of the track."""
    content = bytearray(file.read_bytes())
    track = content.index(b"tkhd") + 4 + 4 + 5 * 4 + 2 * 4 + 4 * 2
    a, b, c, d = (value << 16 for value in matrix)
    values = (a, b, 0, c, d, 0, 0, 0, 1 << 30)
    content[track : track + 36] = b"".join(value.to_bytes(4, "big", signed=True) for value in values)
    file.write_bytes(content)


def _sound(target: Any, codec: str, language: str) -> Any:
    """A second of a tone."""
    rate = 48000
    stream = target.add_stream(codec, rate=rate, layout="mono")
    if language:
        stream.metadata["language"] = language
    form = stream.codec_context.codec.audio_formats[0].name
    tone = np.sin(np.arange(rate) * (0.05 + 0.01 * len(target.streams))) * 0.5

    def packets() -> Any:
        resampler = av.AudioResampler(format=form, layout="mono", rate=rate, frame_size=1024)
        for begin in range(0, rate, 1024):
            part = av.AudioFrame.from_ndarray(tone[None, begin : begin + 1024].astype(np.float32), "fltp", "mono")
            part.sample_rate, part.pts, part.time_base = rate, begin, Fraction(1, rate)
            for frame in resampler.resample(part):
                yield from stream.encode(frame)
        for frame in resampler.resample(None):
            yield from stream.encode(frame)
        yield from stream.encode()

    return packets()


def _text(target: Any, codec: str, language: str, line: str) -> Any:
    from qsci_plugins.data.video.subtitles import _STYLE

    stream = target.add_stream(codec)
    stream.codec_context.subtitle_header = _STYLE
    stream.metadata["language"] = language

    def packets() -> Any:
        content = line.encode()
        if codec == "ass":
            content = f"0,0,Default,,0,0,0,,{line}".encode()
        packet = av.Packet(len(content).to_bytes(2, "big") + content if codec == "mov_text" else content)
        packet.stream, packet.time_base = stream, Fraction(1, 1000)
        packet.pts = packet.dts = 100
        packet.duration, packet.is_keyframe = 200, True
        yield packet

    return packets()


def _top_field_first(frame: Any) -> Any:
    graph = Graph()
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base)
    graph.link_nodes(source, graph.add("setfield", "tff"), graph.add("buffersink"))
    graph.configure()
    graph.push(frame)
    return graph.pull()

"""`qsci upscale` for clips and for raw frames on standard input: frame by frame, in constant memory."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from qsci_plugins.commands.upscale_settings import UpscaleSettings
from qsci_plugins.errors import UserError
from qsci_plugins.progress import Progress

__all__ = ["standard_streams", "upscale_raw", "upscale_video"]


def upscale_video(
    model: str | Path,
    clip: str | Path,
    output: str | Path,
    settings: UpscaleSettings | None = None,
    *,
    progress: Progress | None = None,
    **options: Any,
) -> Path:
    """Enlarges every frame of a video file and keeps its frame rate and audio; memory does not grow with its length.

    `options` are single `settings`.

    Raises UserError for a clip that cannot be read, an output that exists (without `force`) and one that no video format
    has the suffix of.
    """
    from qsci_plugins.data.video import VideoReader, VideoWriter

    progress, settings = progress or Progress(), (settings or UpscaleSettings()).changed(options)
    clip, output = Path(clip), Path(output)
    if output.exists() and not settings.force:
        raise UserError(f"{output} exists; name another output, or replace it with --force")
    if output.exists() and output.samefile(clip):
        raise UserError(f"{output} is the clip to enlarge; name another output")
    upscaler = settings.upscaler(model)
    reader = VideoReader(clip)
    try:
        with VideoWriter(output, reader.rate, reader.audio) as writer:
            if reader.audio is not None and not writer.keeps_audio:
                progress.note(f"{output}: this format does not take the clip's audio, it is left out")
            done = 0
            with progress.stage("upscaling", max(1, reader.frames)) as advance:
                for item in reader.items():
                    if not isinstance(item, np.ndarray):
                        writer.write_audio(item)
                        continue
                    writer.write(upscaler.upscale(item))
                    done += 1
                    advance(done, total=max(done, reader.frames))
    finally:
        reader.close()
    return output


def upscale_raw(
    model: str | Path,
    source: BinaryIO,
    target: BinaryIO,
    size: tuple[int, int],
    settings: UpscaleSettings | None = None,
    *,
    progress: Progress | None = None,
    **options: Any,
) -> int:
    """Raw 8-bit RGB frames of `size` (width, height) from `source` to `target`, enlarged; returns how many there were.

    `options` are single `settings`.

    Raises UserError where the input ends inside a frame, and where the reader of the output has gone.
    """
    from qsci_plugins.data.video import raw_frames

    upscaler = (settings or UpscaleSettings()).changed(options).upscaler(model)
    count = 0
    with (progress or Progress()).stage("upscaling", 1) as advance:
        for frame in raw_frames(source, *size):
            try:
                _write_strips(target, upscaler.strips(frame))
            except BrokenPipeError:
                raise UserError(f"whatever reads the output stopped after frame {count}") from None
            count += 1
            advance(count, total=count)
    return count


def standard_streams() -> tuple[BinaryIO, BinaryIO]:
    """Standard input and output as bytes."""
    return sys.stdin.buffer, sys.stdout.buffer


def _write_strips(target: BinaryIO, strips: Iterable[Any]) -> None:
    for strip in strips:
        target.write(np.ascontiguousarray(strip).data)
    target.flush()

"""`qsci upscale` for clips and for raw frames on standard input: frame by frame, in constant memory."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from qsci_plugins.errors import UserError
from qsci_plugins.progress import Progress

if TYPE_CHECKING:
    from qsci_plugins.openvino.runtime import Tile

__all__ = ["standard_streams", "upscale_raw", "upscale_video"]


def upscale_video(
    model: str | Path,
    clip: str | Path,
    output: str | Path,
    *,
    force: bool = False,
    threads: int | None = None,
    streams: int | None = None,
    cache_dir: str | Path | None = None,
    tile: Tile | None = "fit",
    progress: Progress | None = None,
) -> Path:
    """Enlarges every frame of a video file and keeps its frame rate and audio; memory does not grow with its length.

    `threads`, `streams`, `cache_dir` and `tile` are `Upscaler`'s.

    Raises UserError for a clip that cannot be read, an output that exists (without `force`) and one that no video format
    has the suffix of.

    With the run that the example of `run` makes:

    >>> from fractions import Fraction
    >>> import numpy as np
    >>> import qsci_plugins
    >>> from qsci_plugins.data.video import VideoWriter
    >>> with VideoWriter("clip.mp4", Fraction(10)) as clip:
    ...     clip.write(np.zeros((32, 40, 3), np.uint8))
    >>> qsci_plugins.upscale_video("runs/tiny", "clip.mp4", "big.mp4").name
    'big.mp4'
    """
    from qsci_plugins.data.video import VideoReader, VideoWriter

    progress = progress or Progress()
    clip, output = Path(clip), Path(output)
    if output.exists() and not force:
        raise UserError(f"{output} exists; name another output, or replace it with --force")
    if output.exists() and output.samefile(clip):
        raise UserError(f"{output} is the clip to enlarge; name another output")
    upscaler = _upscaler(model, threads=threads, streams=streams, cache_dir=cache_dir, tile=tile)
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
    *,
    threads: int | None = None,
    streams: int | None = None,
    cache_dir: str | Path | None = None,
    tile: Tile | None = "fit",
    progress: Progress | None = None,
) -> int:
    """Raw 8-bit RGB frames of `size` (width, height) from `source` to `target`, enlarged; returns how many there were.

    `threads`, `streams`, `cache_dir` and `tile` are `Upscaler`'s.

    Raises UserError where the input ends inside a frame, and where the reader of the output has gone.

    With the run that the example of `run` makes:

    >>> import io
    >>> import qsci_plugins
    >>> source, target = io.BytesIO(bytes(2 * 32 * 40 * 3)), io.BytesIO()
    >>> qsci_plugins.upscale_raw("runs/tiny", source, target, (40, 32))
    2
    >>> len(target.getvalue()) == 2 * 64 * 80 * 3
    True
    """
    from qsci_plugins.data.video import raw_frames

    upscaler = _upscaler(model, threads=threads, streams=streams, cache_dir=cache_dir, tile=tile)
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


def _upscaler(model: str | Path, **settings: Any) -> Any:
    from qsci_plugins.commands.upscale import model_folder
    from qsci_plugins.openvino.runtime import Upscaler

    return Upscaler(model_folder(Path(model)), precision="auto", **settings)

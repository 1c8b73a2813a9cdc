"""`qsci upscale - -o -`: raw frames from standard input to standard output, in constant memory."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from qsci_plugins.commands.upscale_settings import UpscaleSettings
from qsci_plugins.errors import UserError
from qsci_plugins.progress import Progress

__all__ = ["standard_streams", "upscale_raw"]


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

    With the run that the example of `run` makes:

    >>> import io
    >>> import qsci_plugins
    >>> source, target = io.BytesIO(bytes(2 * 32 * 40 * 3)), io.BytesIO()
    >>> qsci_plugins.upscale_raw("runs/tiny", source, target, (40, 32))
    2
    >>> len(target.getvalue()) == 2 * 64 * 80 * 3
    True
    """
    from qsci_plugins.data.video.raw import raw_frames

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

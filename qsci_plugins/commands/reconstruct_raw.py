"""`qsci reconstruct` for raw measurements on standard input: one by one, in constant memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from qsci_plugins.commands.reconstruct_settings import ReconstructSettings
from qsci_plugins.data.frame_writers import to_levels
from qsci_plugins.data.snapshot_white import white_level
from qsci_plugins.errors import UserError
from qsci_plugins.progress import Progress

__all__ = ["PIXEL_FORMATS", "reconstruct_raw"]

#: ffmpeg's names of what a measurement's pixels are
PIXEL_FORMATS: dict[str, np.dtype[Any]] = {
    "gray": np.dtype("u1"),
    "gray16le": np.dtype("<u2"),
    "gray16be": np.dtype(">u2"),
}


def reconstruct_raw(
    model: str | Path,
    source: BinaryIO,
    target: BinaryIO,
    pixel_format: str = "gray",
    settings: ReconstructSettings | None = None,
    *,
    progress: Progress | None = None,
    **options: Any,
) -> int:
    """Raw measurements of the mask's size from `source`; the frames of each, 8-bit grey (or rgb24 in colour), to `target`.

    Returns how many measurements there were. `options` are single `settings`, of which `mask` is needed; without `white`
    the first measurement tells it. Raises UserError where the input ends inside a measurement, and where the reader of
    the output has gone.
    """
    settings, progress = (settings or ReconstructSettings()).changed(options), progress or Progress()
    network = settings.network(model)
    mask = settings.camera_mask(network.frames)
    if mask is None:
        raise UserError("raw measurements come without a mask; give the camera's with --mask FILE")
    ready, white, count = network.behind(mask), settings.white, 0
    with progress.stage("reconstructing", 1) as advance:
        for measurement in _measurements(source, mask.shape[1], mask.shape[2], PIXEL_FORMATS[pixel_format]):
            if white is None:
                dtype = np.dtype(PIXEL_FORMATS[pixel_format].newbyteorder("="))
                found = white_level(measurement[None], dtype, mask)
                white = found.level
                progress.note(found.sentence("the first measurement"))
            frames = to_levels(ready.reconstruct(measurement / np.float32(white)))
            try:
                target.write(np.ascontiguousarray(frames).data)
                target.flush()
            except BrokenPipeError:
                raise UserError(f"whatever reads the output stopped after measurement {count}") from None
            count += 1
            advance(count, total=count)
    return count


def _measurements(stream: BinaryIO, height: int, width: int, dtype: np.dtype) -> Iterator[np.ndarray]:
    """float32 (H,W), one after the other."""
    size = width * height * dtype.itemsize
    count = 0
    while data := stream.read(size):
        if len(data) != size:
            raise UserError(
                f"the input ends inside measurement {count + 1}: {len(data)} of {size} bytes; is {width}x{height} its"
                " size, and its pixels' format that of --pixels?"
            )
        count += 1
        yield np.frombuffer(data, dtype).reshape(height, width).astype(np.float32)

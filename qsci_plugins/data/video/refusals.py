"""What of a clip 8-bit frames and H.264 cannot keep: said before any work."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from qsci_plugins.data.video.color import has_alpha
from qsci_plugins.data.video.reading import VideoReader
from qsci_plugins.errors import UserError

__all__ = ["changes", "check_keepable"]


#: pixels across and down that H.264 is coded at, and in all: the encoder holds some twenty frames
_LONGEST, _SHORTEST = 16384, 2
_MOST_PIXELS = 1 << 26


def check_keepable(reader: VideoReader, scale: int = 1) -> None:
    """Raises UserError for HDR, transparency, colour that no known matrix codes, and sizes that H.264 does not take when
    they are `scale` times as large."""
    color = reader.color
    width, height = (scale * side for side in reader.size)
    if min(width, height) < _SHORTEST or max(width, height) > _LONGEST or width * height > _MOST_PIXELS:
        raise UserError(
            f"{reader.file} would become {width}x{height} pixels; H.264 is written with sides of {_SHORTEST} to {_LONGEST},"
            f" and {_MOST_PIXELS} pixels in all"
        )
    if color.is_wide:
        raise UserError(
            f"{reader.file} is HDR or bt2020 (primaries {color.primaries}, transfer {color.transfer}, matrix {color.matrix}),"
            " which 8-bit networks do not keep; convert it to bt709 first, as ffmpeg's zscale and tonemap do"
        )
    if not color.is_known:
        raise UserError(
            f"{reader.file} is coded by a colour matrix that is not supported ({color.matrix} of H.273); convert it to bt709"
        )
    frame = _transparent_frame(reader)
    if frame is not None:
        raise UserError(
            f"{reader.file} is transparent in frame {frame}, which H.264 does not keep; lay it over a background first, or"
            " enlarge its frames as PNG files"
        )


def changes(reader: VideoReader, scale: int) -> Iterator[str]:
    """One line for each thing that comes out otherwise than it was."""
    depth = max(component.bits for component in reader.first.format.components)
    if depth > 8:
        yield f"{depth} bits per sample become 8"
    width, height = (scale * side for side in reader.size)
    if width % 2 or height % 2:
        sides = " and ".join(name for name, side in (("column", width), ("row", height)) if side % 2)
        yield f"loses its last {sides}: H.264 takes even sizes, {width - width % 2}x{height - height % 2}"


def _transparent_frame(reader: VideoReader) -> int | None:
    """The number of the first frame with a pixel that is not opaque."""
    if reader.stream.metadata.get("alpha_mode") == "1":  # VP8 and VP9 keep it in a picture of its own
        return 1
    if not has_alpha(reader.first.format):
        return None
    with VideoReader(Path(reader.file)) as again:
        for index, frame in enumerate(again.decoded(), 1):
            if (np.asarray(frame.to_ndarray(format="rgba"))[..., 3] != 255).any():
                return index
    return None

"""16 bits for each colour, which Pillow cuts to 8."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from qsci_plugins.extras import naming_extras

__all__ = ["deep_pixels", "has_deep_colours"]

_STREAMS = {"PNG": "png_pipe", "PPM": "ppm_pipe", "TIFF": "tiff_pipe"}
_BITS_PER_SAMPLE = 258


def has_deep_colours(image: Image.Image) -> bool:
    """Whether a file, just opened or at a page just sought, has 16 bits for several channels."""
    if image.format == "TIFF":
        bits = getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE, ())
        return len(bits) > 1 and set(bits) == {16}
    # a tile's arguments name the layout of its pixels, and are gone when it is loaded
    return any("16B" in str(tile[3]) or "65535" in str(tile[3]) for tile in getattr(image, "tile", ()))


def deep_pixels(path: Path, image: Image.Image, page: int) -> np.ndarray | None:
    """uint16 (H,W,C), C 1 to 4, of a PNG, TIFF or PPM file that has as many bits and that Pillow has found sound.

    None where it is packed in a way that only Pillow, with 8 bits, can read. Raises UserError where av is not
    installed and it takes that.
    """
    if image.format not in _STREAMS:
        return None
    if image.format == "TIFF":
        found = _by_tifffile(path, page)
        if found is not None or page:
            return found
    return _by_ffmpeg(path, _STREAMS[image.format])


def _by_tifffile(path: Path, page: int) -> np.ndarray | None:
    try:
        import tifffile

        with tifffile.TiffFile(path) as file:
            found: Any = file.pages[page]
            pixels = found.asarray()
            if found.planarconfig == 2:
                pixels = np.moveaxis(pixels, 0, -1)
    except Exception:  # whatever a codec that is not installed, or a damaged file, makes it raise
        return None
    return pixels if pixels.dtype == np.uint16 and pixels.ndim == 3 and 1 <= pixels.shape[2] <= 4 else None


def _by_ffmpeg(path: Path, stream: str) -> np.ndarray | None:
    with naming_extras():
        import av
    try:
        with path.open("rb") as file, av.open(file, "r", format=stream) as container:
            frame = next(container.decode(video=0))
    except (OSError, StopIteration, ValueError):
        return None
    channels = {"gray16": 1, "ya16": 2, "rgb48": 3, "rgba64": 4}.get(frame.format.name[:-2])
    if channels is None:
        return None
    plane: Any = frame.planes[0]
    order = ">u2" if frame.format.name.endswith("be") else "<u2"
    rows = np.frombuffer(plane, order).reshape(frame.height, plane.line_size // 2)
    return rows[:, : frame.width * channels].reshape(frame.height, frame.width, channels).astype(np.uint16)

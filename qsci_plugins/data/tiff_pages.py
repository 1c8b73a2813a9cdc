"""TIFF files of several pages, each of its own size, and of 16 bits."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, BinaryIO

import numpy as np

from qsci_plugins.data.image_metadata import Metadata

__all__ = ["write_pages"]

_XMP, _BYTES = 700, 1
#: what describes a picture in a TIFF's own tags, all of them text
_DESCRIPTIONS = (270, 271, 272, 305, 306, 315, 316, 33432)
_TEXT = 2


def write_pages(file: BinaryIO, pages: Iterable[tuple[np.ndarray, Metadata]]) -> None:
    """Writes pages (H,W,C) of uint8 or uint16, C 1 to 4 as grey, grey and alpha, RGB, RGBA, one after the other."""
    import tifffile

    with tifffile.TiffWriter(file) as writer:
        for pixels, metadata in pages:
            channels = pixels.shape[2]
            settings: dict[str, Any] = {}
            if channels in (2, 4):
                settings["extrasamples"] = ["unassalpha"]
            if metadata.dpi is not None:
                settings["resolution"], settings["resolutionunit"] = metadata.dpi, "inch"
            writer.write(
                np.ascontiguousarray(pixels if channels > 1 else pixels[..., 0]),
                photometric="minisblack" if channels < 3 else "rgb",
                planarconfig=None if channels == 1 else "contig",
                compression="zlib",
                iccprofile=metadata.icc_profile,
                extratags=_tags(metadata),
                software=False,
                metadata=None,
                **settings,
            )


def _tags(metadata: Metadata) -> list[tuple[int, int, int, Any, bool]]:
    tags: list[tuple[int, int, int, Any, bool]] = []
    if metadata.xmp is not None:
        tags.append((_XMP, _BYTES, len(metadata.xmp), metadata.xmp, True))
    if metadata.exif is not None:
        from PIL import Image

        exif = Image.Exif()
        exif.load(metadata.exif)
        for tag in _DESCRIPTIONS:
            if isinstance(exif.get(tag), str):
                tags.append((tag, _TEXT, 0, exif[tag], True))
    return tags

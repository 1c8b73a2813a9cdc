"""TIFF files of several pages, each of its own size, and of 16 bits."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, TiffTags
from PIL.TiffImagePlugin import AppendingTiffWriter, ImageFileDirectory_v2

from qsci_plugins.data.image_metadata import Metadata

__all__ = ["write_pages"]

_UNASSOCIATED_ALPHA, _DEFLATE, _INCH = 2, 8, 2
_BYTES, _UNDEFINED = 1, 7


def write_pages(file: BinaryIO, pages: Iterable[tuple[np.ndarray, Metadata]]) -> None:
    """Writes pages (H,W,C) of uint8 or uint16, C 1 to 4 as grey, grey and alpha, RGB, RGBA, one after the other."""
    with AppendingTiffWriter(file, new=True) as writer:
        for pixels, metadata in pages:
            _write_page(writer, pixels, metadata)
            writer.newFrame()


def _write_page(file: Any, pixels: np.ndarray, metadata: Metadata) -> None:
    height, width, channels = pixels.shape
    data = zlib.compress(np.ascontiguousarray(pixels.astype(pixels.dtype.newbyteorder("<"))).data, 4)
    directory = ImageFileDirectory_v2()
    _describe(directory, metadata)
    bits = 8 * pixels.dtype.itemsize
    tags: dict[int, Any] = {
        256: width,
        257: height,
        258: (bits,) * channels,
        259: _DEFLATE,
        262: 1 if channels < 3 else 2,
        273: 0,  # where the pixels begin: counted from behind the directory when that is written
        277: channels,
        278: height,
        279: len(data),
        284: 1,
        339: (1,) * channels,
    }
    if channels in (2, 4):
        tags[338] = _UNASSOCIATED_ALPHA
    for tag, value in tags.items():
        directory[tag] = value
    file.seek(directory.save(file))
    file.write(data)


def _describe(directory: ImageFileDirectory_v2, metadata: Metadata) -> None:
    if metadata.exif is not None:
        exif = Image.Exif()
        exif.load(metadata.exif)
        for tag in exif:
            directory[tag] = exif.get_ifd(tag) if tag in TiffTags.TAGS_V2_GROUPS else exif[tag]
    if metadata.dpi is not None:
        directory[282], directory[283], directory[296] = *metadata.dpi, _INCH
    if metadata.xmp is not None:
        directory.tagtype[700], directory[700] = _BYTES, metadata.xmp
    if metadata.icc_profile is not None:
        directory.tagtype[34675], directory[34675] = _UNDEFINED, metadata.icc_profile

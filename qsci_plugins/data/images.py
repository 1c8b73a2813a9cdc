"""Image files in: RGB inside, what has to be put back beside it, and one clear error for what cannot be used."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from qsci_plugins.data.deep_images import has_deep_colours
from qsci_plugins.data.folders import find_images, list_images
from qsci_plugins.data.image_decoding import DAMAGE, decoded, opened, reason, upright, without_pillows_limit
from qsci_plugins.data.image_metadata import NO_METADATA, Metadata, orientation, profile_space, read_metadata
from qsci_plugins.data.image_writing import write_image
from qsci_plugins.errors import UserError
from qsci_plugins.machine import MAX_MEMORY, memory_limit

__all__ = [
    "Frames",
    "Photo",
    "find_images",
    "image_size",
    "list_images",
    "open_frames",
    "read_image",
    "read_photo",
    "write_image",
]

#: a picture takes up to so many bytes a pixel: as decoded, as RGB of 16 bits and alpha, and its result
_PIXEL_BYTES = 32

_QUARTER_TURNS = (5, 6, 7, 8)

#: bit 0 of a TIFF page's NewSubfileType: another page in fewer pixels
_SUBFILE_TYPE, _REDUCED = 254, 1


@dataclass(frozen=True)
class Photo:
    """A picture as the networks see it, with what has to be put back when it is written.

    `rgb` is uint8 (H,W,3), or uint16 where that was asked for; `alpha` (H,W) of the same type, or None where the file has
    no transparency; `mode` is Pillow's name of what the file holds ("L", "RGBA", "I;16", ...); `metadata` describes `rgb`.
    `duration` is how many milliseconds a frame of an animation stays.
    """

    rgb: np.ndarray
    alpha: np.ndarray | None = None
    mode: str = "RGB"
    metadata: Metadata = NO_METADATA
    duration: float = 0.0

    @property
    def icc_profile(self) -> bytes | None:
        """What describes the colours, None for sRGB."""
        return self.metadata.icc_profile

    @property
    def is_grey(self) -> bool:
        """Whether the file holds one grey channel, maybe with alpha."""
        return self.mode in ("1", "L", "LA", "La", "I") or self.mode.startswith("I;16")


@dataclass(frozen=True)
class Frames:
    """The pictures in one file.

    `kind`: "one"; "animation", played `plays` times (0: for ever); "pages", each of its own size; "views" beside the
    main picture, as phones store them. `photos` yields `count` of them, one at a time.
    """

    kind: Literal["one", "animation", "pages", "views"]
    count: int
    plays: int
    photos: Iterator[Photo]


def read_image(path: str | Path, max_pixels: int | None = None) -> np.ndarray:
    """The colours of an image file as uint8 RGB (H,W,3); `read_photo` has the transparency too."""
    return read_photo(path, max_pixels).rgb


def read_photo(path: str | Path, max_pixels: int | None = None, *, deep: bool = False) -> Photo:
    """Reads the first picture of a PNG, JPEG, BMP, WebP, TIFF, GIF or PPM file, upright.

    Grey is replicated to three channels, palettes are resolved, inks go through the file's profile, 16 bits are scaled
    (not clipped) to 8 unless `deep`, and the EXIF orientation is applied.
    Raises UserError for a file that is missing, empty, truncated, not an image or of a kind with no defined
    8-bit form (floating point, 32-bit integers), and, before anything is decoded, for one of more than
    `max_pixels` pixels, by default those that fit into `machine.memory_limit` (134 million, 11,585 x 11,585).
    """
    path = Path(path)
    with opened(path) as image:
        return _photo(path, image, 0, max_pixels, deep)


@contextmanager
def open_frames(path: str | Path, max_pixels: int | None = None, *, deep: bool = False) -> Iterator[Frames]:
    """All pictures of a file, each read as `read_photo` does, with its errors."""
    path = Path(path)
    with opened(path) as image:
        try:
            with without_pillows_limit():
                indices = _indices(image)
        except DAMAGE as error:
            raise UserError(f"{path} is damaged or cut off, its pictures cannot be counted: {reason(error)}") from error
        kind: Literal["one", "animation", "pages", "views"] = "one"
        if len(indices) > 1 or image.format == "GIF":
            kind = "pages" if image.format == "TIFF" else "views" if image.format == "MPO" else "animation"
        if kind == "views":
            indices = indices[:1]
        yield Frames(
            kind,
            getattr(image, "n_frames", 1) if kind == "views" else len(indices),
            _plays(image),
            (_photo(path, image, index, max_pixels, deep) for index in indices),
        )


def image_size(path: str | Path) -> tuple[int, int]:
    """(height, width) by the header alone, which an EXIF quarter turn may still swap."""
    with opened(Path(path)) as image:
        return image.height, image.width


def _indices(image: Image.Image) -> list[int]:
    """The pictures that are no thumbnail of another, and no stand-in for readers that know no animations."""
    count = getattr(image, "n_frames", 1)
    if image.format == "PNG" and count > 1 and image.info.get("default_image"):
        return list(range(1, count))
    if image.format != "TIFF" or count == 1:
        return list(range(count))
    found = []
    for index in range(count):
        image.seek(index)
        kind = getattr(image, "tag_v2", {}).get(_SUBFILE_TYPE, 0)
        if not int(kind) & _REDUCED:
            found.append(index)
    image.seek(0)
    return found or [0]


def _plays(image: Image.Image) -> int:
    """How often an animation is played; 0 for ever."""
    loop = image.info.get("loop")
    if image.format == "GIF":  # what is written there are the plays after the first
        return 1 if loop is None else 0 if loop == 0 else int(loop) + 1
    return 0 if loop is None else int(loop)


def _photo(path: Path, image: Image.Image, index: int, max_pixels: int | None, deep: bool) -> Photo:
    way_out = "cut it into parts" if max_pixels is not None else f"cut it into parts, or raise {MAX_MEMORY}"
    most = memory_limit() // _PIXEL_BYTES if max_pixels is None else max_pixels
    with without_pillows_limit():
        try:
            if index or image.tell():
                image.seek(index)
            width, height = image.size
            if width * height > most:
                raise UserError(
                    f"{path} says that it is {width}x{height} pixels, more than the limit of {most:,}; {way_out}"
                )
            colours = deep and has_deep_colours(image)  # which loading forgets
            before = orientation(image)
            image.load()
            mode = image.mode
            rgb, alpha = decoded(path, image, index, colours or (deep and mode.startswith("I")))
        except MemoryError as error:
            raise UserError(f"{path} ({image.width}x{image.height} pixels) does not fit into memory") from error
        except DAMAGE as error:
            raise UserError(f"{path} is damaged or cut off, it cannot be decoded: {reason(error)}") from error
        turn = orientation(image)
        metadata = read_metadata(image, before in _QUARTER_TURNS or turn in _QUARTER_TURNS)
        duration = image.info.get("duration", 0)
    if metadata.icc_profile is not None and not _still_right(mode, profile_space(metadata.icc_profile)):
        metadata = replace(metadata, icc_profile=None)
    return Photo(
        upright(rgb, turn),
        None if alpha is None else upright(alpha, turn),
        mode,
        metadata,
        float(duration) if isinstance(duration, int | float) else 0.0,
    )


def _still_right(mode: str, space: str | None) -> bool:
    """Whether a profile of colours `space` describes the pixels of a file in `mode` as RGB or grey."""
    if mode in ("CMYK", "LAB"):
        return space == "RGB"  # what some programs leave in files of inks describes them after the plain conversion
    return True

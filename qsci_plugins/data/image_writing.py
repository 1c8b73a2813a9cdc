"""Image files out: complete or not at all, with whatever the format can hold of what came with the picture."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from qsci_plugins.data.folders import WRITABLE_FORMATS
from qsci_plugins.data.image_decoding import reason
from qsci_plugins.data.image_metadata import NO_METADATA, Metadata, save_options
from qsci_plugins.data.png_writer import write_png
from qsci_plugins.errors import UserError
from qsci_plugins.files import replacing

__all__ = ["SAVE_OPTIONS", "image_file", "image_format", "no_alpha", "refuse_larger", "write_image", "write_pixels"]

#: the settings of Pillow's writers
SAVE_OPTIONS: dict[str, dict[str, Any]] = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"quality": 95}}
_OPAQUE = ("JPEG", "BMP")
#: pixels of a side that a format can hold, of those that are soon reached
_LARGEST = {"GIF": 65535, "JPEG": 65500, "WEBP": 16383}
#: formats of 16 bits
_DEEP = ("PNG", "TIFF")


def image_format(path: Path) -> str:
    """Pillow's name of the format that a file's suffix asks for. Raises UserError for an unknown one."""
    format_ = WRITABLE_FORMATS.get(path.suffix.lower())
    if format_ is None:
        raise UserError(f"cannot write {path}: no image format has the suffix {path.suffix!r}; use .png, .jpg or .webp")
    return format_


def refuse_larger(path: Path, format_: str, size: tuple[int, int]) -> None:
    """Raises UserError where a picture of (width, height) is larger than a format can hold, before it is computed."""
    if max(size) > _LARGEST.get(format_, max(size)):
        raise UserError(
            f"cannot write {path}: it would have {size[0]}x{size[1]} pixels, and {format_} holds at most"
            f" {_LARGEST[format_]} along a side; use .png or .tif"
        )


def write_image(
    path: str | Path, rgb: np.ndarray, alpha: np.ndarray | None = None, icc_profile: bytes | None = None
) -> None:
    """Writes uint8 RGB (H,W,3) or grey (H,W), and uint8 (H,W) transparency where given, in the format of the suffix.

    The file appears complete or not at all: it is written under a temporary name beside the target and
    renamed.
    Raises UserError for an unknown suffix, transparency in a format that has none, and whatever the disk
    refuses.
    """
    if rgb.dtype != np.uint8 or rgb.ndim not in (2, 3) or rgb.shape[2:] not in ((), (3,)):
        raise ValueError(f"an image to write is uint8 (H,W,3) or (H,W), not {rgb.dtype} {rgb.shape}")
    if alpha is not None and (alpha.dtype != np.uint8 or alpha.shape != rgb.shape[:2]):
        raise ValueError(f"the alpha of a {rgb.shape[:2]} image is not {alpha.dtype} {alpha.shape}")
    pixels = rgb if rgb.ndim == 3 else rgb[..., None]
    if alpha is not None:
        pixels = np.concatenate([pixels, alpha[..., None]], axis=2)
    write_pixels(path, [pixels], (rgb.shape[1], rgb.shape[0]), pixels.shape[2], 8, Metadata(icc_profile=icc_profile))


def write_pixels(
    path: str | Path,
    strips: Iterable[np.ndarray],
    size: tuple[int, int],
    channels: int,
    bits: int,
    metadata: Metadata = NO_METADATA,
    note: Callable[[str], None] = lambda text: None,
) -> None:
    """Writes strips (rows,W,channels) of `bits` 8 (uint8) or 16 (uint16), top to bottom; a PNG file as they come.

    1 to 4 channels are grey, grey and alpha, RGB, RGBA; `size` is (width, height). What the format cannot hold of
    `metadata`, and 16 bits in one that has 8, is given to `note` as one line. Errors are `write_image`'s.
    """
    path = Path(path)
    format_ = image_format(path)
    refuse_larger(path, format_, size)
    if format_ in _OPAQUE and channels in (2, 4):
        strips, channels = no_alpha(path, format_, _whole(strips)), channels - 1
    options, kept, lost = save_options(metadata, format_, channels, size)
    if bits == 16 and format_ not in _DEEP:
        lost.append("16 bits")
    if lost:
        note(f"{path}: {format_} does not hold {' and '.join(lost)} here; left out")
    with image_file(path) as file:
        if format_ == "PNG":
            write_png(file, strips, size, channels, bits, kept)
        elif bits == 16 and format_ == "TIFF":
            from qsci_plugins.data.tiff_pages import write_pages

            write_pages(file, [(_whole(strips), kept)])
        else:
            pixels = _whole(strips)
            _pillow_image(pixels if bits == 8 else to_eight_bits(pixels)).save(
                file, format_, **{**SAVE_OPTIONS.get(format_, {}), **options}
            )


@contextmanager
def image_file(path: Path) -> Iterator[BinaryIO]:
    """A file that takes the place of `path` when it is complete; whatever is refused is a UserError."""
    try:
        with replacing(path) as temporary, io.BufferedRandom(_WithoutDescriptor(temporary, "w+b")) as file:
            yield file
    except (ValueError, OverflowError) as error:
        raise UserError(f"cannot write {path}: {reason(error)}") from error


def no_alpha(path: Path, format_: str, pixels: np.ndarray) -> list[np.ndarray]:
    """Pixels (H,W,C) without their last channel, which has to be opaque; else UserError."""
    if pixels[..., -1].min() < np.iinfo(pixels.dtype).max:
        raise UserError(f"cannot write {path}: the image is partly transparent and {format_} is not; use .png")
    return [pixels[..., :-1]]


def to_eight_bits(pixels: np.ndarray) -> np.ndarray:
    """round(v * 255 / 65535) of uint16."""
    return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _whole(strips: Iterable[np.ndarray]) -> np.ndarray:
    parts = list(strips)
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _pillow_image(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels))


class _WithoutDescriptor(io.FileIO):
    """Keeps Pillow's C encoders off the descriptor: they would report a full disk as "encoder error -2"."""

    def fileno(self) -> int:
        raise io.UnsupportedOperation("fileno")

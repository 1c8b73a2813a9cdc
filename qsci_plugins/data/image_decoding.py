"""Pixels of files: opened without Pillow's pitfalls, upright, as RGB of 8 or 16 bits and alpha."""

from __future__ import annotations

import os
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from qsci_plugins.data.deep_images import deep_pixels
from qsci_plugins.data.image_metadata import profile_space
from qsci_plugins.errors import UserError
from qsci_plugins.files import check_regular

__all__ = ["DAMAGE", "STRIP_PIXELS", "decoded", "opened", "reason", "upright", "without_pillows_limit"]

# Named, so that a file cannot pick one of Pillow's decoders that start other programs or follow references.
_READABLE = ("PNG", "JPEG", "BMP", "WEBP", "TIFF", "GIF", "PPM")
#: what Pillow's decoders raise on damaged files, beside OSError
DAMAGE = (
    AssertionError,
    EOFError,
    IndexError,
    KeyError,
    OSError,
    OverflowError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
#: converted at once, so that only one copy of an image exists
STRIP_PIXELS = 2**22
_pillow_limit = threading.RLock()


def reason(error: Exception) -> str:
    """What went wrong, in a few words."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """The file with its header read; whatever is wrong up to there is a UserError."""
    check_regular(path)
    try:
        file = path.open("rb")
    except OSError as error:
        raise UserError(f"cannot read {path}: {reason(error)}") from error
    with file:
        if not os.fstat(file.fileno()).st_size:
            raise UserError(f"{path} is an empty file, not an image")
        try:
            with without_pillows_limit():
                image = Image.open(file, formats=_READABLE)
        except Image.UnidentifiedImageError as error:
            raise UserError(
                f"{path} is not an image that can be read (PNG, JPEG, BMP, WebP, TIFF, GIF, PPM)"
            ) from error
        except DAMAGE as error:
            raise UserError(f"{path} is damaged, its header cannot be read: {reason(error)}") from error
        with image:
            yield image


@contextmanager
def without_pillows_limit() -> Iterator[None]:
    """Pillow's own limit is a setting of the whole process, lower than ours, and warns on the way there.

    It warns of damaged metadata too, which is left out.
    """
    with _pillow_limit, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def decoded(path: Path, image: Image.Image, page: int, deep: bool) -> tuple[np.ndarray, np.ndarray | None]:
    """RGB (H,W,3) and alpha (H,W) of a loaded image, `page` of its file: uint16 where `deep` (the file has as many bits),
    else uint8. Raises UserError for values of no known range."""
    # 16-bit grey is "I;16" or, by format and version of Pillow, "I" with the same 0..65535 in it
    sixteen = image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))
    if not sixteen and image.mode in ("I", "F"):
        kind = "32-bit integers" if image.mode == "I" else "floating-point numbers"
        raise UserError(f"{path} holds {kind}, whose range is not known; save it with 8 or 16 bits per channel")
    if deep and sixteen:
        grey = np.asarray(image).astype(np.uint16)
        return np.repeat(grey[..., None], 3, axis=2), None
    if deep and (pixels := deep_pixels(path, image, page)) is not None:
        if pixels.shape[2] < 3:
            pixels = pixels[..., [0, 0, 0, 1]] if pixels.shape[2] == 2 else pixels.repeat(3, axis=2)
        return np.ascontiguousarray(pixels[..., :3]), (pixels[..., 3].copy() if pixels.shape[2] == 4 else None)
    transparent = not sixteen and image.has_transparency_data
    convert = _converter(image, "RGBA" if transparent else "RGB")
    width, height = image.size
    rgb = np.empty((height, width, 3), np.uint8)
    alpha = np.empty((height, width), np.uint8) if transparent else None
    rows = max(1, STRIP_PIXELS // width)
    for top in range(0, height, rows):
        strip = slice(top, min(top + rows, height))
        part = image.crop((0, strip.start, width, strip.stop))
        if sixteen:
            # round(v * 255 / 65535) in integers
            rgb[strip] = ((np.asarray(part).astype(np.uint32) + 128) // 257)[..., None]
            continue
        values = np.asarray(convert(part))
        rgb[strip] = values[..., :3]
        if alpha is not None:
            alpha[strip] = values[..., 3]
    return rgb, alpha


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """(H,W,...) turned and mirrored as EXIF orientation 2..8 asks."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _converter(image: Image.Image, mode: str) -> Any:
    """What turns a part of the image into `mode`: inks through the profile that comes with them, into sRGB."""
    if image.mode not in ("CMYK", "LAB"):
        return lambda part: part.convert(mode)
    from io import BytesIO

    from PIL import ImageCms

    profile = image.info.get("icc_profile")
    try:
        if image.mode == "LAB":
            source: Any = ImageCms.createProfile("LAB")
        elif profile and profile_space(profile) == "CMYK":
            source = ImageCms.ImageCmsProfile(BytesIO(profile))
        else:
            return lambda part: part.convert(mode)
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), image.mode, "RGB")
    except ImageCms.PyCMSError:  # a damaged profile costs no pixel
        return lambda part: part.convert(mode)
    return lambda part: ImageCms.applyTransform(part, transform)

"""Image files in and out: always 8-bit RGB inside, and one clear error for every file that cannot be used."""

from __future__ import annotations

import io
import os
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from qsci_plugins.data.folders import IMAGE_FORMATS, find_images, list_images
from qsci_plugins.errors import UserError
from qsci_plugins.files import replacing

__all__ = [
    "MAX_PIXELS",
    "Photo",
    "find_images",
    "image_size",
    "list_images",
    "read_image",
    "read_photo",
    "write_image",
]

#: the largest picture that is decoded unless the caller allows more: about 16,000 x 16,000
MAX_PIXELS = 2**28

# Named, so that a file cannot pick one of Pillow's decoders that start other programs or follow references.
_READABLE = ("PNG", "JPEG", "BMP", "WEBP", "TIFF", "GIF", "PPM")
_SAVE_OPTIONS = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"quality": 95},
    "PNG": {"compress_level": 4},
}
#: what Pillow's decoders raise on damaged files, beside OSError
_DAMAGE = (
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
_STRIP_PIXELS = 2**22
_ORIENTATION_TAG = 0x0112
_pillow_limit = threading.RLock()


@dataclass(frozen=True)
class Photo:
    """A picture as the networks see it, with what has to be put back when it is written.

    `rgb` is uint8 (H,W,3); `alpha` uint8 (H,W), or None where the file has no transparency; `mode` is
    Pillow's name of what the file holds ("L", "RGBA", "I;16", ...); `icc_profile` describes the colours of
    `rgb`, None for sRGB.
    """

    rgb: np.ndarray
    alpha: np.ndarray | None = None
    mode: str = "RGB"
    icc_profile: bytes | None = None


def read_image(path: str | Path, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """The colours of an image file as uint8 RGB (H,W,3); `read_photo` has the transparency too."""
    return read_photo(path, max_pixels).rgb


def read_photo(path: str | Path, max_pixels: int = MAX_PIXELS) -> Photo:
    """Reads the first picture of a PNG, JPEG, BMP, WebP, TIFF, GIF or PPM file, upright.

    Grey is replicated to three channels, palettes are resolved, 16 bits are scaled (not clipped) to 8, and
    the EXIF orientation is applied.
    Raises UserError for a file that is missing, empty, truncated, not an image or of a kind with no defined
    8-bit form (floating point, 32-bit integers), and, before anything is decoded, for one of more than
    `max_pixels` pixels.
    """
    path = Path(path)
    with _opened(path) as image:
        width, height = image.size
        if width * height > max_pixels:
            raise UserError(
                f"{path} says that it is {width}x{height} pixels, more than the limit of {max_pixels:,}; "
                "cut it into parts"
            )
        try:
            image.load()
            mode, format_ = image.mode, image.format
            rgb, alpha = _decoded(path, image, format_)
        except MemoryError as error:
            raise UserError(f"{path} ({width}x{height} pixels) does not fit into memory") from error
        except _DAMAGE as error:
            raise UserError(f"{path} is damaged or cut off, it cannot be decoded: {_reason(error)}") from error
        orientation = _orientation(image)
        profile = image.info.get("icc_profile") if mode in ("RGB", "RGBA", "P") else None
    rgb = _upright(rgb, orientation)
    return Photo(rgb, None if alpha is None else _upright(alpha, orientation), mode, profile or None)


def image_size(path: str | Path) -> tuple[int, int]:
    """(height, width) by the header alone, which an EXIF quarter turn may still swap."""
    with _opened(Path(path)) as image:
        return image.height, image.width


def write_image(
    path: str | Path, rgb: np.ndarray, alpha: np.ndarray | None = None, icc_profile: bytes | None = None
) -> None:
    """Writes uint8 RGB (H,W,3) or grey (H,W), and uint8 (H,W) transparency where given, in the format of the suffix.

    The file appears complete or not at all: it is written under a temporary name beside the target and
    renamed.
    Raises UserError for an unknown suffix, transparency in a format that has none, and whatever the disk
    refuses.
    """
    path = Path(path)
    format_ = IMAGE_FORMATS.get(path.suffix.lower())
    if format_ is None:
        raise UserError(f"cannot write {path}: no image format has the suffix {path.suffix!r}; use .png, .jpg or .webp")
    if rgb.dtype != np.uint8 or rgb.ndim not in (2, 3) or rgb.shape[2:] not in ((), (3,)):
        raise ValueError(f"an image to write is uint8 (H,W,3) or (H,W), not {rgb.dtype} {rgb.shape}")
    if alpha is not None and (alpha.dtype != np.uint8 or alpha.shape != rgb.shape[:2]):
        raise ValueError(f"the alpha of a {rgb.shape[:2]} image is not {alpha.dtype} {alpha.shape}")
    if alpha is not None and format_ in ("JPEG", "BMP"):
        if alpha.min() < 255:
            raise UserError(f"cannot write {path}: the image is partly transparent and {format_} is not; use .png")
        alpha = None
    image = Image.fromarray(np.ascontiguousarray(rgb))
    if alpha is not None:
        image.putalpha(Image.fromarray(np.ascontiguousarray(alpha)))
    options: dict[str, object] = dict(_SAVE_OPTIONS.get(format_, {}))
    if icc_profile is not None and format_ != "BMP":
        options["icc_profile"] = icc_profile
    try:
        with replacing(path) as temporary, io.BufferedWriter(_WithoutDescriptor(temporary, "wb")) as file:
            image.save(file, format_, **options)
    except ValueError as error:
        raise UserError(f"cannot write {path}: {_reason(error)}") from error


class _WithoutDescriptor(io.FileIO):
    """Keeps Pillow's C encoders off the descriptor: they would report a full disk as "encoder error -2"."""

    def fileno(self) -> int:
        raise io.UnsupportedOperation("fileno")


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """The file with its header read; whatever is wrong up to there is a UserError."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise UserError(f"cannot read {path}: {_reason(error)}") from error
    with file, _without_pillows_limit():
        if not os.fstat(file.fileno()).st_size:
            raise UserError(f"{path} is an empty file, not an image")
        try:
            image = Image.open(file, formats=_READABLE)
        except Image.UnidentifiedImageError as error:
            raise UserError(
                f"{path} is not an image that can be read (PNG, JPEG, BMP, WebP, TIFF, GIF, PPM)"
            ) from error
        except _DAMAGE as error:
            raise UserError(f"{path} is damaged, its header cannot be read: {_reason(error)}") from error
        with image:
            yield image


@contextmanager
def _without_pillows_limit() -> Iterator[None]:
    """Pillow's own limit is a setting of the whole process, lower than ours, and warns on the way there."""
    with _pillow_limit:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _decoded(path: Path, image: Image.Image, format_: str | None) -> tuple[np.ndarray, np.ndarray | None]:
    """RGB and alpha of a loaded image, converted strip by strip so that only one copy of it exists."""
    # 16-bit grey is "I;16" or, by format and version of Pillow, "I" with the same 0..65535 in it
    sixteen = image.mode.startswith("I;16") or (image.mode == "I" and format_ in ("PNG", "PPM"))
    if not sixteen and image.mode in ("I", "F"):
        kind = "32-bit integers" if image.mode == "I" else "floating-point numbers"
        raise UserError(f"{path} holds {kind}, whose range is not known; save it with 8 or 16 bits per channel")
    transparent = not sixteen and image.has_transparency_data
    width, height = image.size
    rgb = np.empty((height, width, 3), np.uint8)
    alpha = np.empty((height, width), np.uint8) if transparent else None
    rows = max(1, _STRIP_PIXELS // width)
    for top in range(0, height, rows):
        strip = slice(top, min(top + rows, height))
        part = image.crop((0, strip.start, width, strip.stop))
        if sixteen:
            # round(v * 255 / 65535) in integers
            rgb[strip] = ((np.asarray(part).astype(np.uint32) + 128) // 257)[..., None]
            continue
        values = np.asarray(part.convert("RGBA" if transparent else "RGB"))
        rgb[strip] = values[..., :3]
        if alpha is not None:
            alpha[strip] = values[..., 3]
    return rgb, alpha


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation; 1 (upright) where the metadata is missing or damaged, which costs no pixel."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return int(image.getexif().get(_ORIENTATION_TAG, 1))
    except (*_DAMAGE, AttributeError):
        return 1


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """(H,W,...) turned and mirrored as EXIF orientation 2..8 asks."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)

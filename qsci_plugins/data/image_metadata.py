"""What a picture's file says beside its pixels, and how each format writes it again."""

from __future__ import annotations

import re
import struct
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from PIL import Image

__all__ = ["NO_METADATA", "Metadata", "orientation", "profile_space", "read_metadata", "save_options"]

_ORIENTATION, _EXIF_IFD = 0x0112, 0x8769
_WIDTH, _HEIGHT = 0xA002, 0xA003
#: tags that describe a TIFF's own layout, its resolution and what has a place of its own here
_LAYOUT = {
    *range(254, 260), 262, 263, 264, 265, 266, 273, 274, *range(277, 284), 284, *range(288, 294), 296, 297, 301, 317,
    *range(318, 326), 330, *range(332, 348), *range(512, 533), 700, 33723, 34377, 34675,
}  # fmt: skip
_XMP_TAG = 700
#: what one of JPEG's segments holds, less what Pillow writes before it
_JPEG_SEGMENT = 65500
_XMP_ORIENTATION = re.compile(rb"""(tiff:Orientation(?:\s*=\s*["']|>\s*))[2-8]""")
_DAMAGE = (AttributeError, IndexError, KeyError, OSError, SyntaxError, TypeError, ValueError, struct.error)


@dataclass(frozen=True)
class Metadata:
    """What stays true of an enlarged picture.

    `exif` without the orientation, which is applied to the pixels; `dpi` across and down; `text` the comments of a PNG
    file; `icc_profile` describes the colours, None for sRGB.
    """

    icc_profile: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None
    text: Mapping[str, str] = field(default_factory=dict)


NO_METADATA = Metadata()


def orientation(image: Image.Image) -> int:
    """The EXIF orientation; 1 (upright) where the metadata is missing or damaged, which costs no pixel."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return int(image.getexif().get(_ORIENTATION, 1))
    except (EOFError, OverflowError, *_DAMAGE):
        return 1


def read_metadata(image: Image.Image, on_its_side: bool = False) -> Metadata:
    """That of a loaded image, upright; what is damaged counts as missing.

    `on_its_side`: the pixels of the file make a quarter turn, which for some formats is known before loading alone.
    """
    info = image.info
    xmp = info.get("xmp")
    if not isinstance(xmp, bytes) and isinstance(info.get("XML:com.adobe.xmp"), str):
        xmp = str(info["XML:com.adobe.xmp"]).encode()
    dpi = _dpi(info.get("dpi"))
    if dpi is not None and on_its_side:
        dpi = (dpi[1], dpi[0])
    profile = info.get("icc_profile")
    return Metadata(
        profile if isinstance(profile, bytes) and profile else None,
        _exif(image),
        _XMP_ORIENTATION.sub(rb"\g<1>1", xmp) if isinstance(xmp, bytes) and xmp else None,
        dpi,
        _text(image),
    )


def profile_space(profile: bytes) -> str | None:
    """The colours that an ICC profile describes ("RGB", "GRAY", "CMYK", ...); None where it is no profile."""
    if len(profile) < 128 or profile[36:40] != b"acsp":
        return None
    return profile[16:20].decode("latin-1").strip()


def save_options(
    metadata: Metadata, format_: str, channels: int, size: tuple[int, int]
) -> tuple[dict[str, object], Metadata, list[str]]:
    """What Pillow's writer of a format takes, the metadata that it will hold, and the names of what it cannot hold.

    `channels` are written, 1 or 2 of them grey; `size` is the width and height of the written picture.
    """
    options: dict[str, object] = {}
    kept, lost = metadata, []
    limit = _JPEG_SEGMENT if format_ == "JPEG" else 2**31
    space = None if metadata.icc_profile is None else profile_space(metadata.icc_profile)
    if metadata.icc_profile is not None:
        fits = space in (None, "GRAY" if channels < 3 else "RGB")
        if format_ in ("BMP", "GIF") or not fits:
            lost.append("the colour profile")
            kept = replace(kept, icc_profile=None)
        else:
            options["icc_profile"] = metadata.icc_profile
    if metadata.exif is not None:
        exif = _of_size(metadata.exif, size)
        if format_ in ("BMP", "GIF") or len(exif) > limit:
            lost.append("EXIF")
            kept = replace(kept, exif=None)
        else:
            kept = replace(kept, exif=exif)
            options["exif"] = exif
    if metadata.xmp is not None:
        if format_ in ("BMP", "GIF") or len(metadata.xmp) > limit:
            lost.append("XMP")
            kept = replace(kept, xmp=None)
        elif format_ == "TIFF":
            content = Image.Exif()
            content.load(kept.exif or b"")
            content[_XMP_TAG] = metadata.xmp
            options["exif"] = content
        else:
            options["xmp"] = metadata.xmp
    if metadata.dpi is not None and format_ not in ("GIF", "WEBP"):
        options["dpi"] = metadata.dpi
    return options, kept, lost


def _dpi(value: object) -> tuple[float, float] | None:
    try:
        across, down = (float(number) for number in value)  # type: ignore[attr-defined]
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return (across, down) if 0 < across < 2**16 and 0 < down < 2**16 else None


def _exif(image: Image.Image) -> bytes | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exif = image.getexif()
            for tag in [tag for tag in exif if tag == _ORIENTATION or (image.format == "TIFF" and tag in _LAYOUT)]:
                del exif[tag]
            # the thumbnail is another picture's by now, and Pillow leaves it out
            return exif.tobytes() if len(exif) else None
    except (EOFError, OverflowError, *_DAMAGE):
        return None


def _of_size(exif: bytes, size: tuple[int, int]) -> bytes:
    """The same with the width and height in it those of the enlarged picture."""
    try:
        content = Image.Exif()
        content.load(exif)
        ifd = content.get_ifd(_EXIF_IFD)
        for tag, side in ((_WIDTH, size[0]), (_HEIGHT, size[1])):
            if tag in ifd:
                ifd[tag] = side
        return content.tobytes()
    except (EOFError, OverflowError, *_DAMAGE):
        return exif


def _text(image: Image.Image) -> dict[str, str]:
    if image.format != "PNG" or getattr(image, "is_animated", False):
        return {}  # of an animation it would be looked for behind the last frame
    try:
        found = getattr(image, "text", {})
    except (EOFError, OverflowError, AssertionError, *_DAMAGE):
        return {}
    return {
        str(key): str(value)
        for key, value in found.items()
        if key != "XML:com.adobe.xmp" and not key.startswith("Raw profile")
    }

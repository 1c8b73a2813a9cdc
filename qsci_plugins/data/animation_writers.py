"""Animated GIF and WebP files, frame by frame: every frame with its own delay, also where two frames are equal.

Pillow's writers make one frame of equal ones, and hold all frames until the end.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterable
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

__all__ = ["write_gif", "write_webp"]

_TRANSPARENT = 255


def write_gif(file: BinaryIO, frames: Iterable[tuple[np.ndarray, float]], plays: int, size: tuple[int, int]) -> None:
    """Writes frames (H,W,C) of 8 bits, C 1 to 4, each with the milliseconds that it stays, to be played `plays` times
    (0: for ever).

    A frame of at most 255 colours keeps them; others get 255 of their own, dithered. Alpha becomes on or off at 128.
    Delays are rounded to hundredths of a second, the format's unit.
    """
    file.write(b"GIF89a" + struct.pack("<HHBBB", *size, 0x70, 0, 0))
    if plays != 1:
        file.write(b"!\xff\x0bNETSCAPE2.0\x03\x01" + struct.pack("<H", max(0, plays - 1)) + b"\0")
    for pixels, duration in frames:
        indices, palette, holes = _palette(pixels)
        # a frame with holes is cleared before the next, else what it shows would stay behind its holes
        flags = (2 << 2 | 1) if holes else (1 << 2)
        delay = min(2**16 - 1, round(duration / 10))
        file.write(b"!\xf9\x04" + struct.pack("<BHB", flags, delay, _TRANSPARENT if holes else 0) + b"\0")
        file.write(b"," + struct.pack("<HHHHB", 0, 0, *size, 0x80 | 7))
        file.write(palette.tobytes())
        file.write(_lzw(indices))
    file.write(b";")


def _palette(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray, bool]:
    """Indices (H,W), a palette (256,3), and whether index 255 is transparent and in use."""
    channels = pixels.shape[2]
    rgb = pixels[..., :3] if channels > 2 else pixels[..., :1].repeat(3, axis=2)
    clear = pixels[..., -1] < 128 if channels in (2, 4) else np.zeros(pixels.shape[:2], bool)
    codes = (rgb.astype(np.uint32) << np.array([16, 8, 0], np.uint32)).sum(axis=2, dtype=np.uint32)
    most = 255 if clear.any() else 256
    colours, inverse = np.unique(codes[~clear], return_inverse=True)
    palette = np.zeros((256, 3), np.uint8)
    indices = np.full(clear.shape, _TRANSPARENT, np.uint8)
    if len(colours) <= most:
        palette[: len(colours)] = (colours[:, None] >> np.array([16, 8, 0], np.uint32)) & 255
        indices[~clear] = inverse.reshape(-1)
    else:
        image = Image.fromarray(np.ascontiguousarray(rgb))
        chosen = image.quantize(255)
        dithered = np.asarray(image.quantize(palette=chosen, dither=Image.Dither.FLOYDSTEINBERG))
        known = np.asarray(chosen.getpalette("RGB"), np.uint8).reshape(-1, 3)[:256]
        palette[: len(known)] = known
        indices[~clear] = dithered[~clear]
    return indices, palette, bool(clear.any())


def _lzw(indices: np.ndarray) -> bytes:
    """The image data of a GIF: cut out of one that Pillow writes."""
    image = Image.fromarray(indices, "P")
    image.putpalette(bytes(range(256)) * 3)
    buffer = io.BytesIO()
    image.save(buffer, "GIF", optimize=False, interlace=0)
    content = buffer.getvalue()
    return content[_data_offset(content) : -1]


def _data_offset(content: bytes) -> int:
    """Where the image data begins in a GIF of one frame."""
    position = 13 + _table_bytes(content[10])
    while content[position : position + 1] == b"!":
        position += 2
        while content[position]:
            position += content[position] + 1
        position += 1
    return position + 10 + _table_bytes(content[position + 9])


def _table_bytes(flags: int) -> int:
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0


def write_webp(
    file: BinaryIO,
    frames: Iterable[tuple[np.ndarray, float]],
    plays: int,
    size: tuple[int, int],
    options: dict[str, Any],
) -> None:
    """Writes frames as `write_gif` takes them; `options` are those of Pillow's writer, with which each is compressed."""
    metadata = {name: options.pop(name) for name in ("icc_profile", "exif", "xmp") if name in options}
    parts: list[bytes] = []
    transparent = False
    for pixels, duration in frames:
        transparent |= pixels.shape[2] in (2, 4)
        body = struct.pack("<II", 0, 0)[:6] + _three(size[0] - 1) + _three(size[1] - 1) + _three(round(duration))
        body += b"\x02"  # over nothing: every frame is the whole picture
        parts.append(_chunk(b"ANMF", body + _frame(pixels, options)))
    flags = 2 | 16 * transparent | 32 * ("icc_profile" in metadata) | 8 * ("exif" in metadata) | 4 * ("xmp" in metadata)
    chunks = [_chunk(b"VP8X", struct.pack("<I", flags) + _three(size[0] - 1) + _three(size[1] - 1))]
    if "icc_profile" in metadata:
        chunks.append(_chunk(b"ICCP", metadata["icc_profile"]))
    chunks += [_chunk(b"ANIM", struct.pack("<IH", 0, plays)), *parts]
    chunks += [
        _chunk(name, metadata[key].removeprefix(b"Exif\0\0"))
        for name, key in ((b"EXIF", "exif"), (b"XMP ", "xmp"))
        if key in metadata
    ]
    content = b"WEBP" + b"".join(chunks)
    file.write(b"RIFF" + struct.pack("<I", len(content)) + content)


def _frame(pixels: np.ndarray, options: dict[str, Any]) -> bytes:
    """The chunks of one compressed picture, from a file that Pillow writes."""
    pixels = pixels[..., [0, 0, 0, 1]] if pixels.shape[2] == 2 else pixels
    image = Image.fromarray(np.ascontiguousarray(pixels if pixels.shape[2] > 1 else pixels[..., 0]))
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", **options)
    content = buffer.getvalue()
    position, kept = 12, b""
    while position < len(content):
        (length,) = struct.unpack("<I", content[position + 4 : position + 8])
        length += length % 2
        if content[position : position + 4] in (b"VP8 ", b"VP8L", b"ALPH"):
            kept += content[position : position + 8 + length]
        position += 8 + length
    return kept


def _chunk(name: bytes, body: bytes) -> bytes:
    return name + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)


def _three(number: int) -> bytes:
    return struct.pack("<I", min(number, 2**24 - 1))[:3]

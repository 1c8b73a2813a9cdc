"""PNG files written row by row, 8 or 16 bits, still or animated, compressed by several threads with ISA-L.

Pillow's writer has 8 bits, holds the whole picture twice, takes one thread, and makes one frame of two that are equal. ISA-L
compresses enlarged photos four times as fast as zlib's quickest level, to files a little smaller.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import BinaryIO

import numpy as np
from isal import isal_zlib

from qsci_plugins.data.image_metadata import Metadata

__all__ = ["write_apng", "write_png"]

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}
#: the 256 KiB that one thread compresses at a time lose nothing to speak of by forgetting what came before
_BLOCK_BYTES = 2**20
#: below this size the smaller file is worth the time
_SMALL_BYTES = 2**22
#: ISA-L's levels: 2 is the best for photos, and leaves tenfold of what repeats often, which 3 finds in twice the time
_PHOTO_LEVEL, _PATTERN_LEVEL = 2, 3
#: a block is such a pattern where a sample, so many rows and bytes of each, takes less than this part of the room
_SAMPLE_ROWS, _SAMPLE_BYTES, _PATTERN_PART = 16, 1024, 0.8
#: an edge along a row is a run among differences to the row above, one across it a lone value among those to the pixel
#: before: of enlarged photos the former take a tenth less room even where they are larger by so much
_UP_MAY_COST = 2
_INCH = 0.0254
_XMP = "XML:com.adobe.xmp"


def write_png(
    file: BinaryIO, strips: Iterable[np.ndarray], size: tuple[int, int], channels: int, bits: int, metadata: Metadata
) -> None:
    """Writes strips (rows,W,channels) of uint8 or uint16, top to bottom, as they come; `size` is (width, height).

    1 to 4 channels are grey, grey and alpha, RGB, RGBA. Raises ValueError for strips that do not make up the size.
    """
    _write_head(file, size, channels, bits, metadata)
    for block in _compressed(strips, size, channels, bits):
        _write_chunk(file, b"IDAT", block)
    _write_chunk(file, b"IEND", b"")


def write_apng(
    file: BinaryIO,
    frames: Iterable[tuple[np.ndarray, float]],
    count: int,
    plays: int,
    size: tuple[int, int],
    channels: int,
    bits: int,
    metadata: Metadata,
) -> None:
    """Writes `count` frames (H,W,channels), each with the milliseconds that it stays, to be played `plays` times (0: for
    ever). Raises ValueError where they are not of one size, or not as many."""
    _write_head(file, size, channels, bits, metadata, struct.pack(">II", count, plays))
    number = written = 0
    for pixels, duration in frames:
        over, under = _fraction(duration)
        control = struct.pack(">IIIIIHHBB", number, *size, 0, 0, over, under, 0, 0)
        _write_chunk(file, b"fcTL", control)
        number += 1
        for block in _compressed([pixels], size, channels, bits):
            if written == 0:
                _write_chunk(file, b"IDAT", block)
            else:
                _write_chunk(file, b"fdAT", struct.pack(">I", number) + block)
                number += 1
        written += 1
    if written != count:
        raise ValueError(f"{written} frames instead of {count}")
    _write_chunk(file, b"IEND", b"")


def _write_head(
    file: BinaryIO, size: tuple[int, int], channels: int, bits: int, metadata: Metadata, animation: bytes | None = None
) -> None:
    file.write(_SIGNATURE)
    _write_chunk(file, b"IHDR", struct.pack(">IIBBBBB", *size, bits, _COLOUR_TYPES[channels], 0, 0, 0))
    if animation is not None:
        _write_chunk(file, b"acTL", animation)
    if metadata.icc_profile is not None:
        _write_chunk(file, b"iCCP", b"ICC Profile\0\0" + zlib.compress(metadata.icc_profile))
    if metadata.dpi is not None:
        _write_chunk(file, b"pHYs", struct.pack(">IIB", *(round(number / _INCH) for number in metadata.dpi), 1))
    if metadata.exif is not None:
        _write_chunk(file, b"eXIf", metadata.exif.removeprefix(b"Exif\0\0"))
    if metadata.xmp is not None:
        _write_chunk(file, b"iTXt", _XMP.encode() + bytes(5) + metadata.xmp)
    for key, text in metadata.text.items():
        name = key.encode("latin-1", "replace")[:79]
        if name:
            _write_chunk(file, b"iTXt", name + bytes(5) + text.encode("utf-8", "replace"))


def _write_chunk(file: BinaryIO, name: bytes, body: bytes) -> None:
    file.write(struct.pack(">I", len(body)) + name)
    file.write(body)
    file.write(struct.pack(">I", isal_zlib.crc32(body, isal_zlib.crc32(name))))


def _compressed(strips: Iterable[np.ndarray], size: tuple[int, int], channels: int, bits: int) -> Iterator[bytes]:
    """One zlib stream of all filtered rows, in pieces that are compressed side by side."""
    width, height = size
    row_bytes = width * channels * bits // 8
    small = row_bytes * height <= _SMALL_BYTES
    checksum = 1
    done = 0
    last = np.zeros(row_bytes, np.uint8)
    waiting: deque[Future[bytes]] = deque()
    threads = max(1, min(8, os.cpu_count() or 1))
    with ThreadPoolExecutor(threads) as pool:
        yield b"\x78\x01"
        for strip in strips:
            if strip.shape[1:] != (width, channels) or strip.dtype != np.dtype(f"u{bits // 8}"):
                raise ValueError(
                    f"a strip is (rows,{width},{channels}) of {bits} bits, not {strip.dtype} {strip.shape}"
                )
            rows = max(1, _BLOCK_BYTES // row_bytes)
            for top in range(0, len(strip), rows):
                data = _bytes_of(strip[top : top + rows])
                filtered = _filtered(data, last, channels * bits // 8)
                last = data[-1].copy()
                done += len(data)
                checksum = isal_zlib.adler32(filtered.data, checksum)
                waiting.append(pool.submit(_deflate, filtered, small))
                while len(waiting) > 2 * threads:
                    yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    if done != height:
        raise ValueError(f"{done} rows instead of {height}")
    yield zlib.compressobj(wbits=-15).flush() + struct.pack(">I", checksum)


def _deflate(rows: np.ndarray, small: bool) -> bytes:
    if small:
        stream = zlib.compressobj(6, zlib.DEFLATED, -15, 9)
        return stream.compress(rows.data) + stream.flush(zlib.Z_FULL_FLUSH)
    top, left = len(rows) // 2, rows.shape[1] // 2
    sample = np.ascontiguousarray(rows[top : top + _SAMPLE_ROWS, left : left + _SAMPLE_BYTES])
    sizes = {level: len(isal_zlib.compress(sample.data, level)) for level in (_PHOTO_LEVEL, _PATTERN_LEVEL)}
    pattern = sizes[_PATTERN_LEVEL] < _PATTERN_PART * sizes[_PHOTO_LEVEL]
    quick = isal_zlib.compressobj(_PATTERN_LEVEL if pattern else _PHOTO_LEVEL, isal_zlib.DEFLATED, -15)
    return quick.compress(rows.data) + quick.flush(isal_zlib.Z_FULL_FLUSH)


def _bytes_of(strip: np.ndarray) -> np.ndarray:
    """The bytes (rows, bytes) of pixels, the higher one first."""
    if strip.dtype == np.uint16:
        strip = strip.astype(">u2")
    return np.ascontiguousarray(strip).reshape(len(strip), -1).view(np.uint8)


def _filtered(data: np.ndarray, above: np.ndarray, step: int) -> np.ndarray:
    """Rows as differences to the row above or the pixel before, or as they are, whichever looks smallest; each led by
    the number of its filter."""
    sampled = range(1, len(data), max(1, len(data) // 8))
    lines = data[sampled.start :: sampled.step] if len(sampled) else data
    before_lines = lines.copy()
    before_lines[:, step:] -= lines[:, :-step]
    up_lines = lines - (data[: -1 : sampled.step][: len(lines)] if len(sampled) else above)
    costs = [_cost(choice) for choice in (lines, before_lines, up_lines)]
    number = costs.index(min(costs))
    if number == 1 and costs[2] <= _UP_MAY_COST * costs[1]:
        number = 2
    rows = np.empty((len(data), data.shape[1] + 1), np.uint8)
    rows[:, 0] = number
    filtered = rows[:, 1:]
    if number == 0:
        filtered[:] = data
    elif number == 1:
        filtered[:, :step] = data[:, :step]
        np.subtract(data[:, step:], data[:, :-step], out=filtered[:, step:])
    else:
        np.subtract(data[0], above, out=filtered[0])
        np.subtract(data[1:], data[:-1], out=filtered[1:])
    return rows


def _cost(rows: np.ndarray) -> float:
    return float(np.abs(rows.view(np.int8).astype(np.int16)).sum())


def _fraction(milliseconds: float) -> tuple[int, int]:
    """Seconds as a fraction of two numbers of 16 bits."""
    if milliseconds == int(milliseconds) and milliseconds < 2**16:
        return int(milliseconds), 1000
    under = next((unit for unit in (1000, 100, 10, 1) if milliseconds * unit / 1000 < 2**16), 1)
    return min(2**16 - 1, round(milliseconds * under / 1000)), under

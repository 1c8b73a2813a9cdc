"""PNG files of photos: small, quick to write, and exact."""

from __future__ import annotations

import io
import zlib

import numpy as np
import pytest
from PIL import Image

from qsci_plugins.data.image_metadata import Metadata
from qsci_plugins.data.photos import builtin_photos
from qsci_plugins.data.png_writer import write_png

WIDTH, HEIGHT = 2000, 1000


def photo(name: str, *, enlarged: bool) -> np.ndarray:
    pixels = dict(builtin_photos())[name]
    if enlarged:
        return np.asarray(Image.fromarray(pixels).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))
    across, down = (-(-size // side) for size, side in zip((WIDTH, HEIGHT), pixels.shape[1::-1], strict=True))
    return np.tile(pixels, (down, across, 1))[:HEIGHT, :WIDTH]


def rows_of(file: bytes) -> np.ndarray:
    """The filtered rows (height, 1 + bytes), each led by the number of its filter."""
    stream, place = b"", 8
    while place < len(file):
        length, name = int.from_bytes(file[place : place + 4], "big"), file[place + 4 : place + 8]
        if name == b"IDAT":
            stream += file[place + 8 : place + 8 + length]
        place += length + 12
    return np.frombuffer(zlib.decompress(stream), np.uint8).reshape(HEIGHT, -1)


def written(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    strips = (pixels[top : top + 96] for top in range(0, HEIGHT, 96))
    write_png(file, strips, (WIDTH, HEIGHT), 3, 8, Metadata())
    assert np.array_equal(np.asarray(Image.open(file)), pixels)
    return file.getvalue()


def plain_size(pixels: np.ndarray, number: int) -> int:
    """What zlib's quickest level makes of all rows with one filter, 1 to the left and 2 upwards."""
    rows = pixels.reshape(HEIGHT, -1).copy()
    if number == 1:
        rows[:, 3:] -= pixels.reshape(HEIGHT, -1)[:, :-3]
    else:
        rows[1:] -= pixels.reshape(HEIGHT, -1)[:-1]
    return len(zlib.compress(np.insert(rows, 0, number, axis=1).tobytes(), 1))


def test_texture_is_no_larger_than_with_a_search_for_strings() -> None:
    pixels = photo("flower", enlarged=False) + np.random.default_rng(0).integers(0, 4, (HEIGHT, WIDTH, 3), np.uint8)
    assert len(written(pixels)) < 0.97 * min(plain_size(pixels, number) for number in (1, 2))


@pytest.mark.parametrize("name", ["flower", "rocket"])
def test_rows_of_an_enlarged_photo_are_differences_to_the_row_above(name: str) -> None:
    pixels = photo(name, enlarged=True)
    file = written(pixels)
    assert np.mean(rows_of(file)[:, 0] == 2) > 0.9
    assert len(file) < 0.95 * plain_size(pixels, 1)


@pytest.mark.parametrize(("down", "across"), [(8, 8), (10, 40)])
def test_what_repeats_is_still_found(down: int, across: int) -> None:
    pattern = np.random.default_rng(0).integers(0, 256, (down, across, 3), np.uint8)
    pixels = np.tile(pattern, (HEIGHT // down, WIDTH // across, 1))
    assert len(written(pixels)) < 0.05 * pixels.nbytes


def test_columns_alone_are_differences_to_the_pixel_before() -> None:
    pixels = np.repeat(np.random.default_rng(0).integers(0, 256, (HEIGHT, 1, 3), np.uint8), WIDTH, axis=1)
    assert set(rows_of(written(pixels))[:, 0]) == {1}

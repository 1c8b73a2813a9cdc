from __future__ import annotations

import numpy as np
import pytest

from qsci_plugins.report.figures import TileBits, bit_map, busiest_crop, comparison

GREY = np.full((120, 200, 3), 128, np.uint8)


def four_tiles(*bits: float) -> list[TileBits]:
    """Overlapping by 20 pixels each way."""
    places = [(0, 0), (0, 90), (50, 0), (50, 90)]
    return [TileBits(top, left, 70, 110, value) for (top, left), value in zip(places, bits, strict=True)]


def test_every_pixel_is_tinted_by_its_own_tile() -> None:
    drawn = bit_map(GREY, four_tiles(3, 4, 5, 3))
    assert drawn.shape[0] > 120
    assert drawn.shape[1:] == (200, 3)
    few, middle, many = drawn[30, 80], drawn[30, 180], drawn[110, 80]
    assert few[2] > few[0]
    assert many[0] > many[2]
    assert middle[0] > middle[2]
    assert middle[1] > many[1]
    assert (drawn[110, 180] == few).all()


def test_colours_are_the_same_whatever_bits_a_picture_has() -> None:
    alone = bit_map(GREY, four_tiles(4, 4, 4, 4), possible=[3, 4, 5])
    mixed = bit_map(GREY, four_tiles(3, 4, 5, 4))
    assert (alone[30, 180] == mixed[30, 180]).all()


@pytest.mark.parametrize("size", [(1, 1), (5, 300), (300, 7)])
def test_pictures_of_any_size(size: tuple[int, int]) -> None:
    picture = np.zeros((*size, 3), np.uint8)
    drawn = bit_map(picture, [TileBits(0, 0, *size, 4.5)], "Mean bits of a tile with a long title:")
    assert drawn.shape[1] == size[1]
    assert busiest_crop(picture, 160) == (0, 0)


def test_many_bit_widths_have_a_short_legend() -> None:
    tiles = [TileBits(0, left, 120, 10, 3 + left / 100) for left in range(0, 200, 10)]
    assert bit_map(GREY, tiles).shape[0] < 120 + 100


def test_the_busiest_part_is_found() -> None:
    picture = GREY.copy()
    picture[60:100, 140:180] = np.random.default_rng(0).integers(0, 256, (40, 40, 3))
    top, left = busiest_crop(picture, 40)
    assert abs(top - 60) <= 1
    assert abs(left - 140) <= 1


def test_panels_stand_side_by_side_and_in_rows() -> None:
    red, blue = np.zeros((40, 50, 3), np.uint8), np.zeros((30, 60, 3), np.uint8)
    red[..., 0], blue[..., 2] = 255, 255
    row = comparison([("a title that is much too long for it", red), ("b", blue)])
    assert (row == (255, 0, 0)).all(2).sum() == red.shape[0] * red.shape[1]
    assert (row == (0, 0, 255)).all(2).sum() == blue.shape[0] * blue.shape[1]
    assert comparison([("a", red), ("b", blue)], columns=1).shape[0] > row.shape[0]

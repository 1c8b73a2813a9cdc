"""Fitted tiles lie inside the image, leave every pixel to exactly one place of the result, and see enough around it."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import openvino
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from openvino import opset13 as ops

from qsci_plugins.errors import UserError
from qsci_plugins.openvino.tiling import DEFAULT_BLEND, Axis, cut_tile, fit_axis, fit_tile, join, most_pixels, plan_axis

HUGE = 10**12


def grid(height: int, width: int, tile: tuple[int, int], overlap: int) -> tuple[Axis, Axis]:
    rows, columns = (
        plan_axis(length, side, overlap, DEFAULT_BLEND) for length, side in zip((height, width), tile, strict=True)
    )
    return rows, columns


def computed(height: int, width: int, tile: tuple[int, int], overlap: int) -> int:
    rows, columns = grid(height, width, tile, overlap)
    return len(rows.starts) * rows.tile * len(columns.starts) * columns.tile


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(0, 40), st.integers(3000, 400_000))
@example(17, 706, 0, 3000)  # two tiles of the smallest height share more than they need to
@settings(max_examples=200, deadline=None)
def test_a_fitted_tile_stays_within_its_bounds_and_is_planned_as_counted(
    height: int, width: int, overlap: int, most: int
) -> None:
    most_in_row = 4 * most
    tile = fit_tile(height, width, overlap, most, most_in_row)
    if tile is None:
        # even the smallest tile that shares enough with its neighbours is too much
        smallest = 2 * overlap + 3 * DEFAULT_BLEND + 2
        assert min(height, smallest) * min(width, smallest) > most or min(height, smallest) * width > most_in_row
        return
    rows, columns = grid(height, width, tile, overlap)
    assert rows.tile * columns.tile <= most
    assert rows.tile * width <= most_in_row
    for axis in (rows, columns):
        assert axis.tile <= axis.length
        assert axis.starts[0] == 0
        assert axis.starts[-1] + axis.tile == axis.length
        ends = 0
        for (start, end), (left, right) in zip(axis.zones, pairwise(axis.starts), strict=True):
            # where two tiles are mixed, and from there on, both know as much of the image as the network looks at
            assert right + overlap <= start < end <= left + axis.tile - overlap
            assert start >= ends
            ends = end


@given(st.integers(1, 120), st.integers(1, 120), st.integers(0, 8), st.integers(1500, 6000), st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_every_pixel_is_upscaled_once(height: int, width: int, overlap: int, most: int, scale: int) -> None:
    tile = fit_tile(height, width, overlap, most, HUGE)
    assert tile is not None
    rows, columns = grid(height, width, tile, overlap)
    # a picture of positions: no two pixels are alike
    places = np.arange(height * width, dtype=np.float64).reshape(height, width, 1)

    def row(y: int) -> np.ndarray:
        tiles = (cut_tile(places, y, x, *tile).repeat(scale, 0).repeat(scale, 1) for x in columns.starts)
        return np.concatenate(list(join(tiles, columns, scale, 1)), axis=1)

    joined = np.concatenate(list(join((row(y) for y in rows.starts), rows, scale, 0)))
    assert np.array_equal(joined, places.repeat(scale, 0).repeat(scale, 1))


@given(st.integers(60, 400), st.integers(60, 400), st.integers(0, 10), st.integers(4000, 40_000), st.data())
@settings(max_examples=100, deadline=None)
def test_no_other_tile_within_the_bounds_computes_less(
    height: int, width: int, overlap: int, most: int, data: st.DataObject
) -> None:
    tile = fit_tile(height, width, overlap, most, HUGE)
    assert tile is not None
    other = data.draw(st.integers(1, height)), data.draw(st.integers(1, width))
    if other[0] * other[1] > most:
        return
    try:
        assert computed(height, width, tile, overlap) <= computed(height, width, other, overlap)
    except UserError:
        assert min(other) < 2 * overlap + 3 * DEFAULT_BLEND + 1


@given(st.integers(1, 4000), st.integers(1, 30), st.integers(0, 40))
@settings(max_examples=200, deadline=None)
def test_an_axis_is_covered_by_the_tiles_asked_for(length: int, count: int, overlap: int) -> None:
    tile = fit_axis(length, count, overlap)
    if tile is None:
        return
    assert len(plan_axis(length, tile, overlap, DEFAULT_BLEND).starts) <= count
    if count > 1 and tile - 1 >= 2 * overlap + 3 * DEFAULT_BLEND:
        assert len(plan_axis(length, tile - 1, overlap, DEFAULT_BLEND).starts) > count


def test_a_4k_frame_computes_few_pixels_twice() -> None:
    height, width, overlap = 1080, 1920, 20
    assert fit_tile(height, width, overlap, HUGE, HUGE) == (height, width)
    for most, wanted in ((1_100_000, 1.03), (750_000, 1.05), (300_000, 1.12)):
        tile = fit_tile(height, width, overlap, most, HUGE)
        assert tile is not None
        assert computed(height, width, tile, overlap) <= wanted * height * width
    assert computed(height, width, (180, 320), overlap) > 1.5 * height * width


def test_a_wide_image_has_low_rows() -> None:
    tile = fit_tile(500, 100_000, 20, 1_000_000, 20_000_000)
    assert tile is not None
    assert tile[0] <= 200
    assert fit_tile(500, 10**9, 20, 1_000_000, 20_000_000) is None


@pytest.mark.parametrize("width", [1, 8])
def test_the_largest_tensor_bounds_the_tile(width: int) -> None:
    image = ops.parameter([1, 10, 20, 1], np.float32)
    wide = ops.tile(image, ops.constant(np.array([1, 1, 1, width])))
    # a constant larger than any activation takes no room per tile
    table = ops.gather(ops.constant(np.zeros((9000, 1), np.float32)), ops.constant(0), ops.constant(0))
    model = openvino.Model([ops.add(wide, table)], [image])
    assert most_pixels(model, (10, 20), limit=4000) == 1000 // width


def test_what_a_network_selects_by_the_image_is_left_out_of_the_bound() -> None:
    image = ops.parameter([1, 10, 20, 1], np.float32)
    places = ops.non_zero(image)  # (4, however many)
    whole = ops.add(image, ops.convert(ops.reduce_max(places, ops.constant([0, 1])), "f32"))
    assert most_pixels(openvino.Model([whole], [image]), (10, 20), limit=4000) == 1000

"""Tiles cover every image once, zones lie where both tiles see enough, and joining loses nothing."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qsci_plugins.errors import UserError
from qsci_plugins.openvino.tiling import cut_tile, join, plan_axis, smallest_tile


def cut_and_join(image: np.ndarray, tile: tuple[int, int], overlap: int, blend: int, scale: int) -> np.ndarray:
    rows = plan_axis(image.shape[0], tile[0], overlap, blend)
    columns = plan_axis(image.shape[1], tile[1], overlap, blend)

    def row(y: int) -> np.ndarray:
        tiles = (cut_tile(image, y, x, *tile).repeat(scale, 0).repeat(scale, 1) for x in columns.starts)
        return np.concatenate(list(join(tiles, columns, scale, 1)), axis=1)

    return np.concatenate(list(join((row(y) for y in rows.starts), rows, scale, 0)))


@given(st.integers(1, 90), st.integers(1, 90), st.integers(12, 40), st.integers(12, 40), st.integers(1, 4), st.data())
@settings(max_examples=80, deadline=None)
def test_joining_what_was_cut_gives_the_image(
    height: int, width: int, tile_height: int, tile_width: int, scale: int, data: st.DataObject
) -> None:
    blend = data.draw(st.integers(0, 3))
    overlap = data.draw(st.integers(0, (min(tile_height, tile_width) - 3 * blend - 1) // 2))
    image = np.random.default_rng(height * 91 + width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    joined = cut_and_join(image, (tile_height, tile_width), overlap, blend, scale)
    assert np.array_equal(joined, image.repeat(scale, 0).repeat(scale, 1))


@given(st.integers(1, 5000), st.integers(8, 300), st.integers(0, 40), st.integers(0, 8))
@settings(max_examples=200, deadline=None)
def test_zones_keep_the_overlap_from_both_inner_edges(length: int, tile: int, overlap: int, blend: int) -> None:
    try:
        axis = plan_axis(length, tile, overlap, blend)
    except UserError:
        assert tile - 2 * overlap - blend < max(1, 2 * blend)
        return
    assert axis.starts[0] == 0
    assert len(axis.starts) == 1 or axis.starts[-1] + tile == length
    ends = [0]
    for index, (start, end) in enumerate(axis.zones):
        assert end - start == blend
        assert start >= ends[-1]
        assert axis.starts[index] + tile - end >= overlap
        assert start - axis.starts[index + 1] >= overlap
        ends.append(end)


def test_a_zone_fades_linearly_from_one_tile_to_the_next() -> None:
    axis = plan_axis(25, 17, 2, 4)
    dark, bright = np.zeros((1, 17, 3), np.uint8), np.full((1, 17, 3), 80, np.uint8)
    joined = np.concatenate(list(join([dark, bright], axis, 1, 1)), axis=1)[0, :, 0]
    start, end = axis.zones[0]
    assert joined[start:end].tolist() == [10, 30, 50, 70]
    assert set(joined[:start]) == {0}
    assert set(joined[end:]) == {80}


def test_an_image_smaller_than_the_tile_is_mirrored() -> None:
    image = np.arange(3, dtype=np.uint8).reshape(1, 3, 1).repeat(3, 2)
    tile = cut_tile(image, 0, 0, 3, 8)
    assert tile[0, :, 0].tolist() == [0, 1, 2, 1, 0, 1, 2, 1]
    assert np.array_equal(tile[2], tile[0])
    assert cut_tile(image[:, :1], 0, 0, 2, 4).max() == 0


def test_too_small_a_tile_is_named_with_the_size_that_works() -> None:
    for multiple, works in ((1, 52), (8, 59)):
        for tile in (48, works - 1):
            with pytest.raises(UserError, match=f"take one of {works} or more"):
                plan_axis(100, tile, 20, 4, multiple)
        assert works == smallest_tile(20, 4, multiple)
        plan_axis(100, works, 20, 4, multiple)


@given(st.integers(1, 600), st.integers(2, 40), st.integers(0, 30), st.integers(0, 4), st.sampled_from([1, 2, 4, 8]))
@settings(max_examples=200, deadline=None)
def test_tiles_of_a_striding_network_begin_at_multiples(
    length: int, tile: int, overlap: int, blend: int, multiple: int
) -> None:
    length, tile = length * multiple, tile * multiple
    try:
        axis = plan_axis(length, tile, overlap, blend, multiple)
    except UserError:
        assert tile < 2 * overlap + 3 * blend + multiple
        return
    assert all(start % multiple == 0 for start in axis.starts)
    assert len(axis.starts) == 1 or axis.starts[-1] + tile == length
    for (start, end), (left, right) in zip(axis.zones, pairwise(axis.starts), strict=True):
        assert right + overlap <= start <= end <= left + tile - overlap


@given(st.integers(1, 250), st.integers(8, 64), st.integers(0, 12), st.integers(1, 64))
@settings(max_examples=200, deadline=None)
def test_joining_gives_the_image_whatever_the_period(length: int, tile: int, overlap: int, multiple: int) -> None:
    try:
        axis = plan_axis(length, tile, overlap, 4, multiple)
    except UserError:
        return
    image = np.random.default_rng(length).integers(0, 256, (length + tile + multiple, 1, 3), dtype=np.uint8)
    parts = (image[start : start + tile] for start in axis.starts)
    assert np.array_equal(np.concatenate(list(join(parts, axis, 1, 0))), image[:length])


def test_a_long_period_repeats_no_tile() -> None:
    assert plan_axis(97, 48, 0, 4, 33).starts == (0, 33, 66)

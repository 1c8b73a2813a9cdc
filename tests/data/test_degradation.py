from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from golden import data_folder
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from qsci_plugins.data import bicubic_down, imresize, modcrop, read_image

SMALL = st.integers(1, 24)


def exact_pass(row: list[int], factor: int) -> list[int]:
    """One row by 1/factor in rational numbers, straight from the definition (Keys 1981, a = -1/2)."""

    def cubic(x: Fraction) -> Fraction:
        x = abs(x)
        if x <= 1:
            return Fraction(3, 2) * x**3 - Fraction(5, 2) * x**2 + 1
        return -Fraction(1, 2) * x**3 + Fraction(5, 2) * x**2 - 4 * x + 2 if x <= 2 else Fraction(0)

    length, result = len(row), []
    for out in range(length // factor):
        centre = Fraction(2 * out + 1, 2) * factor - Fraction(1, 2)
        total = weight = Fraction(0)
        for position in range(-4 * factor, length + 4 * factor):
            share = cubic((centre - position) / factor)
            mirrored = position % (2 * length)
            total += share * row[min(mirrored, 2 * length - 1 - mirrored)]
            weight += share
        result.append(min(255, max(0, (total / weight + Fraction(1, 2)).__floor__())))
    return result


@pytest.mark.parametrize("scale", [2, 4])
def test_equals_matlab_on_every_pixel_of_set5(scale: int) -> None:
    folder = data_folder() / "sr/benchmark/Set5"
    files = sorted((folder / "HR").iterdir())
    assert files
    for file in files:
        expected = read_image(folder / f"LR_bicubic/X{scale}/{file.stem}x{scale}.png")
        np.testing.assert_array_equal(bicubic_down(read_image(file), scale), expected, err_msg=file.stem)


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_one_row_equals_the_definition_in_rational_numbers(factor: int) -> None:
    row = np.random.default_rng(factor).integers(0, 256, 12 * factor, np.uint8)
    # equal rows stay what they are under the vertical pass, so only the horizontal one is seen
    image = np.tile(row, (4 * factor, 1))
    expected = exact_pass(row.tolist(), factor)
    assert bicubic_down(image, factor)[1].tolist() == expected


def test_rounds_between_the_two_passes() -> None:
    image = np.random.default_rng(0).integers(0, 256, (32, 32), np.uint8)
    columns = np.array([exact_pass(column.tolist(), 2) for column in image.T], np.uint8).T
    expected = [exact_pass(row.tolist(), 2) for row in columns]
    assert bicubic_down(image, 2).tolist() == expected


@given(SMALL, SMALL, st.integers(0, 255), st.sampled_from([0.25, 1 / 3, 0.5, 0.7, 1.0, 1.5, 3.0]))
def test_constant_stays_constant(height: int, width: int, value: int, scale: float) -> None:
    result = imresize(np.full((height, width, 3), value, np.uint8), scale)
    assert result.shape == (int(np.ceil(height * scale)), int(np.ceil(width * scale)), 3)
    assert (result == value).all()


@settings(deadline=None)
@given(
    hnp.arrays(np.uint8, st.tuples(SMALL.map(lambda n: 4 * n), SMALL.map(lambda n: 4 * n))),
    st.sampled_from([2, 4]),
)
def test_mirrored_image_gives_the_mirrored_result(image: np.ndarray, scale: int) -> None:
    result = bicubic_down(image, scale)
    np.testing.assert_array_equal(bicubic_down(image[::-1, ::-1], scale), result[::-1, ::-1])


@given(hnp.arrays(np.uint8, st.tuples(SMALL, SMALL, st.just(3))), st.sampled_from([0.5, 2.0]))
def test_channels_do_not_mix(image: np.ndarray, scale: float) -> None:
    result = imresize(image, scale)
    for channel in range(3):
        np.testing.assert_array_equal(result[..., channel], imresize(image[..., channel], scale))


def test_blocks_of_rows_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.random.default_rng(1).integers(0, 256, (40, 24, 3), np.uint8)
    whole = imresize(image, 0.5)
    monkeypatch.setattr("qsci_plugins.data.degradation._BLOCK_VALUES", 200)
    np.testing.assert_array_equal(imresize(image, 0.5), whole)


def test_scale_of_each_dimension_follows_from_the_size() -> None:
    image = np.random.default_rng(2).integers(0, 256, (8, 12), np.uint8)
    assert imresize(image, size=(5, 24)).shape == (5, 24)
    np.testing.assert_array_equal(imresize(image, size=(4, 6)), imresize(image, 0.5))
    # the width shrinks, the height grows: the width comes first
    expected = imresize(imresize(image, size=(8, 6)), size=(16, 6))
    np.testing.assert_array_equal(imresize(image, size=(16, 6)), expected)


def test_result_never_shares_memory_with_the_image() -> None:
    image = np.zeros((4, 4), np.uint8)
    assert not np.shares_memory(imresize(image, 1.0), image)


def test_modcrop_keeps_the_upper_left() -> None:
    image = np.arange(7 * 9, dtype=np.uint8).reshape(7, 9)
    np.testing.assert_array_equal(modcrop(image, 4), image[:4, :8])


@pytest.mark.parametrize(
    ("image", "arguments"),
    [
        (np.zeros((4, 4), np.float32), {"scale": 0.5}),
        (np.zeros(4, np.uint8), {"scale": 0.5}),
        (np.zeros((4, 4), np.uint8), {}),
        (np.zeros((4, 4), np.uint8), {"scale": 0.5, "size": (2, 2)}),
        (np.zeros((4, 4), np.uint8), {"size": (0, 2)}),
        (np.zeros((0, 4), np.uint8), {"scale": 0.5}),
    ],
)
def test_what_cannot_be_resized_is_refused(image: np.ndarray, arguments: dict) -> None:
    with pytest.raises(ValueError, match="resize"):
        imresize(image, **arguments)


def test_image_smaller_than_the_scale_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot resize"):
        bicubic_down(np.zeros((3, 3), np.uint8), 4)

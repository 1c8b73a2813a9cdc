from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from skimage.metrics import structural_similarity

from qsci_plugins.evaluation.metrics import luma, psnr, psnr_y, ssim, ssim_y

IMAGES = hnp.arrays(np.uint8, (16, 14, 3))


def image(seed: int = 0, height: int = 24, width: int = 20) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def noisy(target: np.ndarray, amount: int = 20) -> np.ndarray:
    noise = np.random.default_rng(9).integers(-amount, amount + 1, target.shape)
    return np.clip(target + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("rgb", "expected"),
    # rgb2ycbcr of MATLAB before it rounds
    [((0, 0, 0), 16.0), ((255, 255, 255), 235.0), ((255, 0, 0), 81.481), ((0, 255, 0), 144.553), ((0, 0, 255), 40.966)],
)
def test_luma_is_that_of_bt601(rgb: tuple[int, int, int], expected: float) -> None:
    assert luma(np.array([[rgb]], np.uint8))[0, 0] == pytest.approx(expected, abs=1e-9)


def test_grey_equals_three_equal_channels() -> None:
    grey = image()[..., 0]
    colour = grey[..., None].repeat(3, 2)
    np.testing.assert_allclose(luma(grey), luma(colour), atol=1e-12)
    np.testing.assert_allclose(luma(grey[..., None]), luma(colour), atol=1e-12)
    assert psnr_y(noisy(colour), grey, 2) == pytest.approx(psnr_y(noisy(colour), colour, 2))


def test_psnr_by_hand() -> None:
    target = np.full((8, 8, 3), 100, np.uint8)
    output = target + np.uint8(10)
    # all channels 10 higher raise Y by 10 * 219 / 255
    assert psnr_y(output, target, 0) == pytest.approx(20 * np.log10(255 / (2190 / 255)))
    assert psnr(output[..., 0], target[..., 0]) == pytest.approx(20 * np.log10(25.5))
    assert psnr(output[..., 0] / 255, target[..., 0] / 255, peak=1.0) == pytest.approx(20 * np.log10(25.5))


def test_border_is_not_measured() -> None:
    target = image()
    output = target.copy()
    output[:3], output[-3:], output[:, :3], output[:, -3:] = 0, 0, 0, 0
    assert psnr_y(output, target, 3) == float("inf")
    assert ssim_y(output, target, 3) == pytest.approx(1.0)
    assert psnr_y(output, target, 2) < 40


@given(IMAGES, IMAGES, st.integers(0, 1))
def test_symmetric_and_bounded(first: np.ndarray, second: np.ndarray, border: int) -> None:
    assert psnr_y(first, second, border) == psnr_y(second, first, border)
    assert ssim_y(first, second, border) == pytest.approx(ssim_y(second, first, border), abs=1e-12)
    assert ssim_y(first, second, border) <= 1 + 1e-12


@given(IMAGES)
def test_an_image_equals_itself(first: np.ndarray) -> None:
    assert psnr_y(first, first, 0) == float("inf")
    assert ssim_y(first, first, 0) == pytest.approx(1.0, abs=1e-12)


def test_more_noise_is_worse() -> None:
    target = image(0, 40, 40)
    levels = [noisy(target, amount) for amount in (5, 20, 60)]
    for measure in (psnr_y, ssim_y):
        values = [measure(level, target, 4) for level in levels]
        assert values == sorted(values, reverse=True)
        assert values[0] > values[-1]


@pytest.mark.parametrize("smooth", [False, True])
def test_ssim_equals_an_independent_implementation(smooth: bool) -> None:
    target = image(1, 33, 41)[..., 0].astype(np.float64)
    if smooth:
        target = np.add.outer(np.arange(33) * 3.0, np.arange(41) * 2.0)
    frame = target + np.random.default_rng(2).normal(0, 12, target.shape)
    _, full = structural_similarity(
        frame, target, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True
    )
    assert ssim(frame, target) == pytest.approx(full[5:-5, 5:-5].mean(), abs=1e-9)


@pytest.mark.parametrize(
    ("output", "target", "border", "message"),
    [
        (image(), image()[:-1], 2, "its target"),
        (image(), image(), 10, "leaves nothing"),
        (image(), image(), -1, "leaves nothing"),
        (image() / 255, image(), 2, "uint8"),
        (image()[..., :2], image(), 2, "uint8"),
    ],
)
def test_what_cannot_be_compared(output: np.ndarray, target: np.ndarray, border: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        psnr_y(output, target, border)


def test_frames_must_fit() -> None:
    with pytest.raises(ValueError, match="at least 11x11"):
        ssim(np.zeros((10, 20)), np.zeros((10, 20)))
    with pytest.raises(ValueError, match="equal frames"):
        ssim(np.zeros((12, 12, 3)), np.zeros((12, 12, 3)))
    with pytest.raises(ValueError, match="equal, non-empty"):
        psnr(np.zeros((4, 4)), np.zeros((4, 5)))

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qsci_plugins.data.snapshots import (
    SensorNoise,
    bayer_mosaic,
    mask_sum,
    measure,
    mixed_masks,
    random_mask,
    shifting_mask,
)


@settings(deadline=None)
@given(st.integers(1, 12), st.integers(1, 9), st.integers(1, 9), st.integers(0, 99))
def test_numpy_and_torch_measure_the_sum_of_what_the_mask_lets_through(
    frames: int, height: int, width: int, seed: int
) -> None:
    mask = random_mask(frames, height, width, seed)
    video = np.random.default_rng(seed).random((frames, height, width)).astype(np.float32)
    measurement = measure(video, mask)
    expected = np.zeros((height, width))
    for t in range(frames):
        expected += np.where(mask[t] == 1, video[t], 0)
    np.testing.assert_allclose(measurement, expected, atol=1e-5)
    batch = measure(torch.from_numpy(video)[None], torch.from_numpy(mask)[None])
    torch.testing.assert_close(batch[0], torch.from_numpy(measurement))


def test_a_shifting_mask_moves_right_by_one_pixel_a_frame() -> None:
    mask = shifting_mask(4, 30, 20, seed=3)
    assert mask.shape == (4, 30, 20)
    assert mask.dtype == np.float32
    assert set(np.unique(mask)) == {0, 1}
    for before, after in pairwise(mask):
        np.testing.assert_array_equal(after[:, 1:], before[:, :-1])
    assert 0.4 < mask[:, :, 0].mean() < 0.6  # what comes in at the left is drawn as well
    assert (mask[0] != shifting_mask(4, 30, 20, seed=4)[0]).any()


def test_mixed_masks_are_of_every_kind() -> None:
    """Four that are drawn anew for each frame, and apertures that move right, left, down and up; no two are alike."""
    masks = mixed_masks(5, 24, 20, seed=2)
    assert masks.shape == (8, 5, 24, 20)
    assert masks.dtype == np.float32
    assert set(np.unique(masks)) == {0, 1}
    moves = {
        "right": (np.s_[:, 1:], np.s_[:, :-1]),
        "left": (np.s_[:, :-1], np.s_[:, 1:]),
        "down": (np.s_[1:], np.s_[:-1]),
        "up": (np.s_[:-1], np.s_[1:]),
    }
    found = [
        [
            name
            for name, (after, before) in moves.items()
            if all(np.array_equal(b[after], a[before]) for a, b in pairwise(mask))
        ]
        for mask in masks
    ]
    assert found == [[], [], [], [], ["right"], ["left"], ["down"], ["up"]]
    # neither an aperture nor a frame comes twice, turned back to the direction that `right` moves in
    apertures = masks[4], masks[5, :, :, ::-1], masks[6], masks[7, :, ::-1]
    assert len({mask[0, :20, :20].tobytes() for mask in (*masks[:4], *apertures)}) == 8
    assert (masks != mixed_masks(5, 24, 20, seed=3)).any((1, 2, 3)).all()


def test_a_pixel_that_never_opens_counts_as_one() -> None:
    mask = np.ones((3, 2, 2), np.float32)
    mask[:, 0, 1] = 0
    assert mask_sum(mask).tolist() == [[3, 1], [3, 3]]
    assert torch.equal(mask_sum(torch.from_numpy(mask)), torch.from_numpy(mask_sum(mask)))
    assert np.isfinite(measure(mask, mask) / mask_sum(mask)).all()


def test_a_bayer_sensor_sees_red_green_green_blue() -> None:
    frames = np.stack([np.full((2, 4, 4), value) for value in (1.0, 2.0, 3.0)])
    assert bayer_mosaic(frames)[1].tolist() == [[1, 2, 1, 2], [2, 3, 2, 3]] * 2
    assert torch.equal(bayer_mosaic(torch.from_numpy(frames)[None])[0], torch.from_numpy(bayer_mosaic(frames)))
    mask = np.ones((2, 4, 4))
    assert measure(frames, mask)[0].tolist() == [2, 4, 2, 4]
    assert frames[1].max() == 2  # the frames are as they were


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="not of one size"):
        measure(np.ones((8, 4, 4)), np.ones((8, 4, 5)))
    with pytest.raises(ValueError, match="colour frames"):
        bayer_mosaic(np.ones((2, 8, 4, 4)))


def test_noise_is_as_strong_as_said_and_comes_from_the_seed() -> None:
    clean = np.full((200, 200), 4.0, np.float32)
    noise = SensorNoise(photons=100, gaussian=0.3)
    noisy = noise.add(clean, 1)
    assert np.array_equal(noisy, noise.add(clean, 1))
    assert not np.array_equal(noisy, noise.add(clean, 2))
    assert noisy.mean() == pytest.approx(4, abs=0.02)
    # 4 frames' brightness of 100 photons each: variance 400 photons, and the read-out's
    assert noisy.var() == pytest.approx(400 / 100**2 + 0.3**2, rel=0.05)
    assert np.array_equal(SensorNoise().add(clean, 0), clean)
    with pytest.raises(ValueError, match="photons > 0"):
        SensorNoise(photons=0)

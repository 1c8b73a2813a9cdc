"""A tile's gradient in numpy is the one that the image thresholds were calibrated on."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qsci_plugins.openvino.gradient import measurement_gradient, route_factor, tile_gradient
from qsci_plugins.schemes.bit_width import ImageToBit
from qsci_plugins.schemes.content import image_gradient


def in_torch(tile: np.ndarray) -> float:
    return image_gradient(torch.from_numpy(tile).permute(2, 0, 1)[None].float(), 255.0)[0].item()


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1), st.integers(1, 255))
@settings(max_examples=50, deadline=None)
def test_gradient_equals_the_schemes(height: int, width: int, seed: int, top: int) -> None:
    tile = np.random.default_rng(seed).integers(0, top + 1, (height, width, 3), dtype=np.uint8)
    assert tile_gradient(tile) == pytest.approx(in_torch(tile), rel=1e-4, abs=1e-4)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1), st.sampled_from([1.0, 255.0]))
@settings(max_examples=50, deadline=None)
def test_gradient_of_a_measurement_equals_the_schemes(height: int, width: int, seed: int, top: float) -> None:
    measurement = np.random.default_rng(seed).random((height, width), dtype=np.float32) * np.float32(4 * top)
    expected = image_gradient(torch.from_numpy(measurement)[None], top)[0].item()
    assert measurement_gradient(measurement, top) == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_a_view_of_an_image_is_measured_like_a_copy() -> None:
    image = np.random.default_rng(0).integers(0, 256, (50, 60, 3), dtype=np.uint8)
    view = image[7:33, 11:52]
    assert tile_gradient(view) == tile_gradient(view.copy())
    assert tile_gradient(np.zeros((1, 1, 3), np.uint8)) == 0


@pytest.mark.parametrize("gradient", [0.0, 10.0, 10.1, 20.0, 20.1])
def test_factor_equals_the_schemes(gradient: float) -> None:
    module = ImageToBit(255.0)
    with torch.no_grad():
        module.lower.fill_(10.0)
        module.upper.fill_(20.0)
        assert route_factor(gradient, 10.0, 20.0) == int(module.factor(torch.tensor([gradient])))


def test_choosing_a_route_takes_under_a_millisecond() -> None:
    tile = np.random.default_rng(0).integers(0, 256, (180, 320, 3), dtype=np.uint8)
    times = []
    for _ in range(30):
        start = time.perf_counter()
        tile_gradient(tile)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.001

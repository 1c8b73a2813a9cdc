"""The runtime with a network that repeats pixels: its floats, and many threads at once, by value."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from exact_network import exact_upscaler, nearest

from qsci_plugins.errors import UserError
from qsci_plugins.openvino.runtime import Tile, Upscaler


@pytest.fixture(scope="module")
def exact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exact_upscaler(tmp_path_factory.mktemp("exact") / "model")


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("tile", ["fit", "image", None])
def test_eight_threads_share_an_upscaler(exact: Path, tile: Tile | None) -> None:
    upscaler = Upscaler(exact, threads=1, tile=tile)
    together = threading.Barrier(8)

    def enlarge(number: int) -> None:
        together.wait()
        for turn in range(4):
            image = noise(20 + 13 * (number % 5), 30 + 11 * turn, seed=number)
            if number % 4 == 3:
                assert np.array_equal(upscaler.upscale(image, as_float=True), nearest(image).astype(np.float32))
            else:
                assert np.array_equal(upscaler.upscale(image), nearest(image))
            rows, columns = upscaler.plan(*image.shape[:2])
            assert len(upscaler.last_routes) == len(rows.starts) * len(columns.starts)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(enlarge, range(8)))


def test_another_thread_may_enlarge_between_two_strips(exact: Path) -> None:
    upscaler = Upscaler(exact, threads=1)
    image = noise(150, 90)
    strips = upscaler.strips(image)
    pieces = [next(strips)]
    assert np.array_equal(upscaler.upscale(image[:40]), nearest(image[:40]))
    pieces += strips
    assert np.array_equal(np.concatenate(pieces), nearest(image))


@pytest.mark.parametrize("size", [(1, 1), (32, 40), (75, 90)])
def test_floats_come_before_rounding(exact: Path, size: tuple[int, int]) -> None:
    upscaler = Upscaler(exact, threads=1, precision="auto")
    image = noise(*size)
    floats = upscaler.upscale(image, as_float=True)
    assert floats.dtype == np.float32
    assert np.array_equal(floats, nearest(image))
    # this network's input has 8 bits, so that it rounds what is between them itself
    assert np.array_equal(
        upscaler.upscale(image.astype(np.float32) * 0.5, as_float=True), nearest(np.rint(image * 0.5))
    )
    assert np.array_equal(upscaler.upscale(image), nearest(image))


def test_float_images_need_float_output(exact: Path) -> None:
    upscaler = Upscaler(exact, threads=1)
    with pytest.raises(UserError, match="8-bit RGB"):
        upscaler.upscale(noise(4, 4).astype(np.float32))
    with pytest.raises(UserError, match="float64"):
        upscaler.upscale(noise(4, 4).astype(np.float64), as_float=True)


def test_a_failing_progress_leaves_the_upscaler_usable(exact: Path) -> None:
    upscaler = Upscaler(exact, threads=1)
    image = noise(75, 90)

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        upscaler.upscale(image, stop)
    assert np.array_equal(upscaler.upscale(image), nearest(image))

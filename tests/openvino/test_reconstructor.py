"""Measurements of any size through a static graph, as the whole network would reconstruct them."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from cores import TWO_CORES
from torch import Tensor, nn
from video_folder import RADIUS, TILE, Strided, exported

from qsci_plugins.data.snapshots import bayer_mosaic, mask_sum, measure, random_mask
from qsci_plugins.errors import UserError
from qsci_plugins.openvino.reconstructor import Reconstructor
from qsci_plugins.openvino.runtime import Upscaler


@pytest.fixture(scope="module")
def grey(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(tmp_path_factory.mktemp("sci") / "grey", {0: Strided()}, 3)


def snapshot(height: int, width: int, frames: int = 3) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(height * width)
    mask = random_mask(frames, height, width)
    return measure(generator.random((frames, height, width), np.float32), mask), mask


def whole(network: nn.Module, measurement: np.ndarray, mask: np.ndarray) -> np.ndarray:
    arguments = [torch.from_numpy(part)[None] for part in (measurement, mask, mask_sum(mask))]
    with torch.no_grad():
        return network.eval()(*arguments)[0].numpy()


@pytest.mark.parametrize(("height", "width"), [(28, 32), (28, 60), (100, 34), (64, 150)])
def test_tiles_give_what_the_whole_measurement_gives(grey: Path, height: int, width: int) -> None:
    measurement, mask = snapshot(height, width)
    reconstructor = Reconstructor(grey, mask)
    frames = reconstructor.reconstruct(measurement)
    assert frames.dtype == np.float32
    np.testing.assert_allclose(frames, whole(Strided(), measurement, mask), atol=1e-5)
    assert reconstructor.tiles == 1 or (height, width) != TILE


@pytest.mark.parametrize(("height", "width"), [(27, 31), (1, 1), (5, 200), (61, 33)])
def test_odd_and_small_sizes_are_mirrored_and_cropped(grey: Path, height: int, width: int) -> None:
    measurement, mask = snapshot(height, width)
    frames = Reconstructor(grey, mask).reconstruct(measurement)
    assert frames.shape == (3, height, width)
    if min(height, width) > 2 * RADIUS + 2:
        padding = ((0, height % 2), (0, width % 2))
        expected = whole(
            Strided(), np.pad(measurement, padding, mode="reflect"), np.pad(mask, ((0, 0), *padding), mode="reflect")
        )
        inside = np.s_[:, : height - RADIUS, : width - RADIUS]
        np.testing.assert_allclose(frames[inside], expected[:, :height, :width][inside], atol=1e-5)


def test_colour_comes_as_three_videos(tmp_path: Path) -> None:
    network = Strided(3)
    folder = exported(tmp_path / "colour", {0: network}, 2, channels=3)
    video = np.random.default_rng(0).random((3, 2, 40, 70), np.float32)
    mask = random_mask(2, 40, 70)
    measurement = measure(video, mask)
    np.testing.assert_allclose(measurement, (mask * bayer_mosaic(video)).sum(0), atol=1e-6)
    frames = Reconstructor(folder, mask).reconstruct(measurement)
    np.testing.assert_allclose(frames, whole(network, measurement, mask), atol=1e-5)


def test_eight_threads_share_a_reconstructor(grey: Path) -> None:
    measurement, mask = snapshot(100, 150)
    reconstructor = Reconstructor(grey, mask, threads=1)
    measurements = [measurement * np.float32(factor) for factor in (0.1, 0.3, 0.5, 0.7, 0.9, 1.1, 1.3, 1.5)]
    expected = [reconstructor.reconstruct(each) for each in measurements]
    together = threading.Barrier(8)

    def reconstruct(number: int) -> None:
        together.wait()
        for turn in range(4):
            chosen = (number + turn) % 8
            np.testing.assert_array_equal(reconstructor.reconstruct(measurements[chosen]), expected[chosen])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(reconstruct, range(8)))


def test_a_stream_is_reconstructed_one_by_one(grey: Path) -> None:
    measurement, mask = snapshot(40, 40)
    taken = []

    def endless():
        while True:
            taken.append(len(taken))
            yield measurement * len(taken)

    stream = Reconstructor(grey, mask).stream(endless())
    first, second = next(stream), next(stream)
    assert taken == [0, 1]
    assert not np.array_equal(first, second)


def test_what_does_not_fit_is_said(grey: Path, tmp_path: Path) -> None:
    measurement, mask = snapshot(40, 50)
    with pytest.raises(UserError, match=r"mask is for 8 frames .* for 3"):
        Reconstructor(grey, random_mask(8, 40, 50))
    with pytest.raises(UserError, match="measurement is 40x40 pixels, the mask 50x40"):
        Reconstructor(grey, mask).reconstruct(measurement[:, :40])
    with pytest.raises(UserError, match="reconstructs videos, it enlarges no images"):
        Upscaler(grey)
    with pytest.raises(UserError, match="too small for an overlap of 12"):
        Reconstructor(grey, mask, overlap=12)


def test_pixels_that_never_open_are_finite(grey: Path) -> None:
    measurement, mask = snapshot(30, 30)
    mask[:, :, 4] = 0
    assert np.isfinite(Reconstructor(grey, mask).reconstruct(measurement)).all()


def test_progress_counts_the_tiles(grey: Path) -> None:
    measurement, mask = snapshot(64, 64)
    reconstructor = Reconstructor(grey, mask)
    seen: list[tuple[int, int]] = []
    reconstructor.reconstruct(measurement, lambda done, total: seen.append((done, total)))
    assert seen == [(done, reconstructor.tiles) for done in range(1, reconstructor.tiles + 1)]


def test_each_tile_takes_the_route_of_its_gradient(tmp_path: Path) -> None:
    class Constant(nn.Module):
        def __init__(self, value: float) -> None:
            super().__init__()
            self.value = value

        def forward(self, measurement: Tensor, mask: Tensor, total: Tensor) -> Tensor:
            return 0 * mask * (measurement / total).unsqueeze(1) + self.value

    folder = exported(tmp_path / "routed", {factor: Constant(factor + 5.0) for factor in (-1, 0, 1)}, 2)
    mask = np.ones((2, TILE[0], 3 * TILE[1]), np.float32)
    measurement = np.zeros(mask.shape[1:], np.float32)
    measurement[::4, -40:] = 1  # rough on the right, flat on the left
    frames = Reconstructor(folder, mask).reconstruct(measurement)
    assert frames[:, :, :10] == pytest.approx(4.0)
    assert frames[:, :, -10:] == pytest.approx(6.0)


@pytest.mark.parametrize("streams", [1, pytest.param(2, marks=TWO_CORES)])
def test_streams_threads_and_a_cache_change_no_frame(grey: Path, tmp_path: Path, streams: int) -> None:
    measurement, mask = snapshot(100, 90)
    expected = Reconstructor(grey, mask).reconstruct(measurement)
    for _ in range(2):  # the second time from the cache
        reconstructor = Reconstructor(grey, mask, threads=2, streams=streams, cache_dir=tmp_path / "cache")
        np.testing.assert_allclose(reconstructor.reconstruct(measurement), expected, atol=1e-6)
        assert {requests.count for requests in reconstructor._requests.values()} == {streams}
    assert list((tmp_path / "cache").glob("*.blob"))


def test_it_runs_without_torch(grey: Path) -> None:
    program = (
        "import sys, numpy as np; sys.modules['torch'] = None\n"
        "from qsci_plugins.openvino.reconstructor import Reconstructor\n"
        f"frames = Reconstructor({str(grey)!r}, np.ones((3, 30, 30))).reconstruct(np.ones((30, 30)))\n"
        "assert frames.shape == (3, 30, 30)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)

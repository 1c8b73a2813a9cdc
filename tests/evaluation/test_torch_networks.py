from __future__ import annotations

import numpy as np
import pytest
import torch
from golden import data_folder
from torch import Tensor, nn

from qsci_plugins.architectures.registry import load_network
from qsci_plugins.data.snapshot_files import read_snapshots
from qsci_plugins.data.snapshots import bayer_mosaic, measure, random_mask
from qsci_plugins.errors import UserError
from qsci_plugins.evaluation.metrics import score_video
from qsci_plugins.evaluation.torch_networks import TorchReconstructor


def test_scores_by_hand() -> None:
    truth = np.zeros((2, 16, 16), np.float32)
    frames = np.stack([np.full((16, 16), 0.1), np.full((16, 16), 0.01)]).astype(np.float32)
    score = score_video(frames, truth)
    assert score.frame_psnr == pytest.approx([20, 40], abs=1e-4)
    assert score.psnr == pytest.approx(30, abs=1e-4)
    # nothing but the mean differs: SSIM is its luminance term
    expected = [6.5025 / ((25.5 * scale) ** 2 + 6.5025) for scale in (1, 0.1)]
    assert score.frame_ssim == pytest.approx(expected, rel=1e-4)
    assert score.ssim == pytest.approx(sum(expected) / 2, rel=1e-4)


def test_frames_are_neither_clamped_nor_rounded() -> None:
    score = score_video(np.full((1, 12, 12), 1.1, np.float32), np.ones((1, 12, 12), np.float32))
    assert score.psnr == pytest.approx(20, abs=1e-4)


def test_colour_is_scored_as_the_sensor_sees_it() -> None:
    generator = np.random.default_rng(0)
    truth, frames = generator.random((2, 3, 2, 12, 12), np.float32)
    assert score_video(frames, truth) == score_video(bayer_mosaic(frames), bayer_mosaic(truth))


def test_frames_smaller_than_the_window_have_no_ssim() -> None:
    score = score_video(np.zeros((1, 10, 12)), np.ones((1, 10, 12)))
    assert score.psnr == 0
    assert score.ssim is None


@pytest.mark.parametrize(("height", "width"), [(16, 16), (15, 17), (1, 3)])
def test_odd_sizes_are_padded_and_cropped(height: int, width: int) -> None:
    network = load_network("efficientsci", None, in_ch=8, units=1, group_num=1)
    mask = random_mask(3, height, width)
    frames = TorchReconstructor(network.module, mask, network.size_multiple).reconstruct(mask.sum(0))
    assert frames.shape == (3, height, width)
    assert np.isfinite(frames).all()


def test_a_network_that_fails_at_a_size_says_so() -> None:
    class Fixed(nn.Module):
        def forward(self, y: Tensor, mask: Tensor, total: Tensor) -> Tensor:
            return mask @ torch.ones(16, 16)

    mask = random_mask(2, 20, 20)
    with pytest.raises(UserError, match="cannot reconstruct 20x20x2"):
        TorchReconstructor(Fixed(), mask).reconstruct(mask[0])
    with pytest.raises(UserError, match="measurement is 20x19 pixels, the mask 20x20"):
        TorchReconstructor(Fixed(), mask).reconstruct(mask[0, :19])


def test_more_frames_than_a_network_knows_are_an_error() -> None:
    network = load_network("stformer", None, dim=8, units=1, frames=4)
    assert TorchReconstructor(network.module, random_mask(3, 17, 16), 2).reconstruct(np.ones((17, 16))).shape == (
        3,
        17,
        16,
    )
    with pytest.raises(UserError, match=r"cannot reconstruct 16x16x5 .* at most 4 frames"):
        TorchReconstructor(network.module, random_mask(5, 16, 16), 2).reconstruct(np.ones((16, 16)))


def test_the_simulation_scenes_are_measured_exactly() -> None:
    for file in sorted((data_folder() / "sci" / "simulation").glob("*.mat")):
        scene = read_snapshots(file)
        assert scene.frames is not None
        for truth, measurement in zip(scene.frames, scene.measurements, strict=True):
            np.testing.assert_allclose(measure(truth, scene.mask), measurement, atol=1e-5)

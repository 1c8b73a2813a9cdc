from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from qsci_plugins.architectures.network import Network
from qsci_plugins.architectures.registry import load_network
from qsci_plugins.evaluation.benchmark import BenchmarkImage, BenchmarkSet
from qsci_plugins.nncf.backend import quantize
from qsci_plugins.pipeline.image_prepare import pieces_of
from qsci_plugins.pipeline.image_task import ImageTask
from qsci_plugins.pipeline.measure import measure_forms
from qsci_plugins.pipeline.patchwise import PatchMeter, patch_starts
from qsci_plugins.progress import Progress
from qsci_plugins.schemes.bit_selector import BitSelector
from qsci_plugins.schemes.content import image_gradient
from qsci_plugins.schemes.placement import Placement
from qsci_plugins.schemes.registry import make_scheme
from qsci_plugins.schemes.scheme import QuantizedNetwork

#: left half flat, right half noise
IMAGE = np.full((40, 52, 3), 128, np.uint8)
IMAGE[:, 26:] = np.random.default_rng(0).integers(0, 256, (40, 26, 3), dtype=np.uint8)


@given(st.integers(1, 300), st.integers(1, 100), st.data())
def test_patches_cover_the_axis_and_stay_inside(size: int, patch: int, data: st.DataObject) -> None:
    step = data.draw(st.integers(1, patch))
    starts = patch_starts(size, patch, step)
    covered = np.zeros(size, bool)
    for start in starts:
        assert start >= 0
        assert start + min(patch, size) <= size
        covered[start : start + patch] = True
    assert covered.all()
    assert all(b - a <= step for a, b in pairwise(starts))
    assert len(set(starts)) == len(starts)


@pytest.fixture(scope="module")
def network() -> Network:
    return load_network("edsr", None, 2, blocks=1, width=8)


@pytest.fixture(scope="module")
def quantized(network: Network) -> QuantizedNetwork:
    """Its bits follow the image's gradient alone."""
    batch = torch.rand(2, 3, 24, 24) * 255
    calibrated = quantize(network.module, make_scheme({"name": "cadyq"}), Placement(("body.0.*",)), [batch], 255.0)
    with torch.no_grad():
        for module in calibrated.model.modules():
            if isinstance(module, BitSelector):
                module.weight.zero_()
                module.weight[2, :2] = 1.0
                module.weight[1, :2] = 0.5
                module.bias.copy_(torch.tensor([0.0, -5.0, -40.0]))
    return calibrated


class Nearest(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.repeat_interleave(2, 2).repeat_interleave(2, 3)


@pytest.mark.parametrize(("patch", "step", "batch"), [(16, 16, 4), (16, 11, 3), (100, 90, 1), (17, 5, 64)])
def test_patches_are_put_together_in_their_places(network: Network, patch: int, step: int, batch: int) -> None:
    scheme = make_scheme({"name": "cadyq"})
    nearest = QuantizedNetwork(nn.Sequential(Nearest(), nn.Identity()), "plain", scheme, {}, value_range=255.0)
    nearest.model.register_parameter("device", nn.Parameter(torch.zeros(())))
    meter = PatchMeter(nearest, network, patch, step, batch)
    assert (meter.upscale(IMAGE) == IMAGE.repeat(2, 0).repeat(2, 1)).all()


def test_every_patch_is_what_the_network_makes_of_it_alone(network: Network, quantized: QuantizedNetwork) -> None:
    meter = PatchMeter(quantized, network, 20, 20, 3)
    output = meter.upscale(IMAGE)
    patches = meter.form().patches
    assert patches is not None
    assert [(patch.top, patch.left) for patch in patches()] == [(t, left) for t in (0, 20) for left in (0, 20, 32)]
    for patch in patches():
        part = IMAGE[patch.top : patch.top + 20, patch.left : patch.left + 20]
        x = torch.from_numpy(part.copy()).permute(2, 0, 1)[None].float()
        assert patch.fab == pytest.approx(quantized.fab(x).item())
        assert patch.gradient == pytest.approx(image_gradient(x)[0].item(), rel=1e-5)
    x = torch.from_numpy(IMAGE[:20, :20].copy()).permute(2, 0, 1)[None].float()
    with torch.no_grad():
        alone = quantized.model(x)[0].clamp(0, 255).round().permute(1, 2, 0).numpy()
    assert np.abs(output[:40, :40].astype(int) - alone).max() <= 1


def test_the_table_says_whether_bits_follow_the_gradient(network: Network, quantized: QuantizedNetwork) -> None:
    images = pieces_of(BenchmarkSet("halves", 2, (BenchmarkImage("a", IMAGE.repeat(2, 0).repeat(2, 1)),)))
    meter = PatchMeter(quantized, network, 16, 16, 4)
    row = measure_forms(ImageTask(), {"torch": meter.form()}, [images, images], Progress())["halves"]["torch"]
    assert row["patches"]["count"] == 3 * 4
    assert row["patches"]["gradient_and_fab"]["spearman"] > 0.8
    assert row["patches"]["gradient_and_fab"]["pearson"] > 0.5
    assert 4 < row["fab"] < 8
    assert row["fab"] == pytest.approx(row["pieces"]["a"]["fab"])
    assert set(meter.bits()) == {"body.0.body.0", "body.0.body.2"}

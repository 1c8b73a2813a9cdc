"""What an exported network computes does not depend on whether the CPU has VNNI."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from openvino_networks import EVERYWHERE, calibrated_edsr
from torch import nn

from qsci_plugins.openvino.export import export_upscaler
from qsci_plugins.openvino.layers import IntegerWeight
from qsci_plugins.openvino.lowering import is_exact_everywhere, limit_pairs, lower
from qsci_plugins.openvino.manifest import load_manifest
from qsci_plugins.schemes.lsq import LearnedStepWeight
from qsci_plugins.schemes.placement import Placement
from qsci_plugins.schemes.weight import ChannelWeight, PairedWeight, largest_pair_sums

TILE = (20, 24)

_UPSCALE = """
import sys
import numpy as np
from qsci_plugins.openvino.runtime import Upscaler
np.save(sys.argv[2], Upscaler(sys.argv[1], precision="f32", threads=1).upscale(np.load(sys.argv[3])))
"""


def upscaled(folder: Path, instructions: str) -> np.ndarray:
    """The folder's result for one image in a process whose oneDNN knows these instructions at most."""
    image, result = folder.parent / "image.npy", folder.parent / f"{instructions}.npy"
    # bright, as saturation takes large values
    np.save(image, np.random.default_rng(0).integers(100, 256, (*TILE, 3), dtype=np.uint8))
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": instructions}
    subprocess.run([sys.executable, "-c", _UPSCALE, folder, result, image], env=environment, check=True)
    return np.load(result).astype(int)


@pytest.mark.parametrize("settings", [{"activation_bits": 8, "image_mapping": False}, {"activation_bits": 6}])
def test_without_vnni_the_result_is_the_same(settings: dict[str, object], tmp_path: Path) -> None:
    stock, network = calibrated_edsr({"weight_bits": 8, **settings}, EVERYWHERE, width=16)
    manifest = export_upscaler(network, stock, tmp_path / "m", tile=TILE, scale=2, overlap=2)
    assert manifest.exact_on == "all"
    assert load_manifest(tmp_path / "m").exact_on == "all"
    expected = upscaled(tmp_path / "m", "DEFAULT")
    for instructions in ("AVX512_CORE", "AVX2"):
        assert np.abs(upscaled(tmp_path / "m", instructions) - expected).mean() < 0.01, instructions


def test_weights_that_were_never_limited_are_limited_in_the_export(tmp_path: Path) -> None:
    stock, network = calibrated_edsr({"weight_bits": 8, "activation_bits": 8}, EVERYWHERE, width=16)
    for layer in network.layers.values():
        assert isinstance(layer.weight, PairedWeight)
        layer.weight.reach.zero_()  # as in a network saved before there was a limit
    manifest = export_upscaler(network, stock, tmp_path / "m", tile=TILE, scale=2, overlap=2)
    assert manifest.exact_on == "all"
    expected = upscaled(tmp_path / "m", "DEFAULT")
    assert np.abs(upscaled(tmp_path / "m", "AVX2") - expected).mean() < 0.01


def test_only_channels_that_would_saturate_are_limited() -> None:
    integers = torch.tensor([[127, 1, 100, -100], [127, 2, 0, 0], [-127, -2, 0, 0]], dtype=torch.int8)[..., None, None]
    weight = limit_pairs(IntegerWeight(integers, torch.ones(3, 1, 1, 1)), 255.0)
    assert isinstance(weight, IntegerWeight)
    assert weight.integers.flatten(1).tolist() == [[127, 1, 100, -100], [64, 1, 0, 0], [-64, -1, 0, 0]]
    assert weight.step.flatten().tolist() == [1.0, 2.0, 2.0]
    assert limit_pairs(weight, 255.0) is weight
    assert limit_pairs(IntegerWeight(integers, torch.ones(3, 1, 1, 1)), 127.0).integers is integers


@pytest.mark.parametrize("kind", [ChannelWeight, LearnedStepWeight])
def test_no_weight_of_a_limited_channel_lies_between_two_levels(kind: type[PairedWeight]) -> None:
    """However the division is done, and in the network as in what hosts make of it."""
    weight = torch.randn(256, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    weight[:, 0] = weight.abs().amax((1, 2, 3), keepdim=True)[
        :, 0
    ]  # takes the last level, and more than a pair's share
    quantizer = (
        ChannelWeight(weight, 8) if kind is ChannelWeight else LearnedStepWeight(256, 4, 8).start(weight, search=True)
    )
    quantizer.reach.fill_(255)
    p = quantizer.qparams(weight)
    limited = (p.high == 64).flatten()
    assert limited.sum() > 200
    ratio = (weight.double() / p.scale.double()).clamp(p.low.double(), p.high.double())[limited]
    assert ((ratio - ratio.floor() - 0.5).abs() > 1e-5).all()
    integers = quantizer.integers(weight)[limited]
    assert torch.equal(integers.double(), ratio.round())
    assert torch.equal(integers, (weight * p.scale.reciprocal()).clamp(p.low, p.high).round()[limited])
    assert integers.max() == 64
    # what was rounded once stays, on levels that a network may have been saved with
    rounded = quantizer(weight).detach()
    assert torch.allclose(quantizer(rounded), rounded, rtol=1e-5, atol=0)


def test_pairs_are_neighbours_and_any_two_where_the_number_is_odd() -> None:
    even = torch.tensor([[1, 127, 127, 1], [127, 127, 1, 1], [127, -127, 1, 1]]).float()
    assert largest_pair_sums(even).tolist() == [128, 254, 127]
    odd = torch.tensor([[[127, 1], [1, 1], [1, 127]]]).float()
    assert largest_pair_sums(odd).tolist() == [254]
    assert largest_pair_sums(torch.full((2, 1, 3, 3), 127.0)).tolist() == [0, 0]


def test_the_manifest_says_what_no_weight_can_help(tmp_path: Path) -> None:
    # i8 activations of a grouped conv3d: its kernel without VNNI loses the last bit of the weights
    stock, network = calibrated_edsr({"activation_bits": 4}, Placement(("body.*",)))
    lowered = lower(stock, network)
    assert is_exact_everywhere(lowered)
    layer = lowered.get_submodule("body.0.body.0")
    grouped = nn.Conv3d(4, 4, 3, groups=2)
    layer.layer = grouped
    assert layer.grid is not None
    assert is_exact_everywhere(lowered) == (layer.grid.bounds[0] == 0)

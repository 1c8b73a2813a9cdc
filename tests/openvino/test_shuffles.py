"""Rewriting pixel shuffles changes no result, and leaves integers to be moved."""

from __future__ import annotations

import numpy as np
import openvino
import pytest
import torch
from openvino_networks import EVERYWHERE, calibrated_edsr
from torch import nn

from qsci_plugins.evaluation.latency import open_graph
from qsci_plugins.openvino.convert import convert
from qsci_plugins.openvino.lowering import lower
from qsci_plugins.openvino.precisions import runtime_precisions


def kinds(model: openvino.Model) -> list[str]:
    return [node.get_type_name() for node in model.get_ordered_ops()]


def infer(model: openvino.Model, x: np.ndarray) -> np.ndarray:
    return np.array(open_graph(model, threads=1)([x])[0])


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_quantizers_move_before_shuffles_exactly(scale: int) -> None:
    stock, network = calibrated_edsr({"weight_bits": 8, "activation_bits": 8}, EVERYWHERE, scale=scale, blocks=1)
    lowered = lower(stock, network)
    before, after = (convert(lowered, (1, 3, 12, 10), tuned=tuned) for tuned in (False, True))
    assert "DepthToSpace" not in kinds(before)
    stages = 2 if scale == 4 else 1
    assert kinds(after).count("DepthToSpace") == stages
    for node in after.get_ordered_ops():
        if node.get_type_name() == "DepthToSpace":
            assert node.input_value(0).get_node().get_type_name() == "FakeQuantize"
            assert node.get_attributes()["mode"] == "blocks_first"
    x = np.random.default_rng(0).uniform(0, 255, (1, 3, 12, 10)).astype(np.float32)
    difference = np.abs(infer(before, x) - infer(after, x))
    assert np.median(difference) < 1e-3
    assert difference.mean() < 0.02
    moved = [layer for layer in runtime_precisions(open_graph(after)) if layer.type == "DepthToSpace"]
    assert [layer.precision in ("u8", "i8") for layer in moved] == [True] * stages


class Shuffled(nn.Module):
    """A float convolution, perhaps something behind it, a pixel shuffle."""

    def __init__(self, between: nn.Module, twice: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 12, 3, padding=1)
        self.between = between
        self.shuffle = nn.PixelShuffle(2)
        self.twice = twice

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.between(self.conv(x))
        shuffled = self.shuffle(y)
        return shuffled + y.mean() if self.twice else shuffled


@pytest.mark.parametrize(
    ("module", "rewritten"),
    [
        (Shuffled(nn.ReLU()), True),
        (Shuffled(nn.BatchNorm2d(12).eval()), True),
        (Shuffled(nn.Softmax(1)), False),
        (Shuffled(nn.Identity(), twice=True), False),
    ],
    ids=["relu", "batch-norm", "softmax", "used-twice"],
)
def test_only_what_keeps_its_result_is_rewritten(module: nn.Module, rewritten: bool) -> None:
    model = convert(module.eval(), (1, 3, 6, 8), 1.0)
    assert ("DepthToSpace" in kinds(model)) == rewritten
    x = np.random.default_rng(0).uniform(0, 1, (1, 3, 6, 8)).astype(np.float32)
    with torch.no_grad():
        expected = module(torch.from_numpy(x)).numpy()
    assert np.abs(infer(model, x) - expected).max() < 1e-5


class _Joined(nn.Module):
    def __init__(self, counts: list[int]) -> None:
        super().__init__()
        self.counts = counts

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, *others = torch.cat([x, 2 * x, x.abs()], 1).split(self.counts, 1)
        return torch.cat([first.sin(), *others], 1)


@pytest.mark.parametrize(("counts", "left_out"), [([4, 4, 4], True), ([6, 6], False), ([2, 6, 4], False)])
@torch.no_grad()
def test_what_is_joined_only_to_be_parted_is_handed_on(counts: list[int], left_out: bool) -> None:
    x = torch.randn(1, 4, 5, 6)
    module = _Joined(counts)
    model = convert(module, x.shape, 1.0)
    assert sum(node.get_type_name() == "Concat" for node in model.get_ops()) == (1 if left_out else 2)
    assert np.allclose(openvino.Core().compile_model(model, "CPU")(x.numpy())[0], module(x).numpy(), atol=1e-2)

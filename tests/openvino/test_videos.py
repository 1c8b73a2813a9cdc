"""Videos are moved about faster, and bit for bit to the same places."""

from __future__ import annotations

import openvino
import pytest
import torch
from torch import Tensor, nn

from qsci_plugins.architectures.sci.efficientsci import EfficientSCI
from qsci_plugins.evaluation.latency import open_graph
from qsci_plugins.openvino.convert import convert_like, split_transposes, video_shuffles_as_copies


class FrameShuffle(nn.Module):
    """A pixel shuffle of every frame between two convolutions."""

    def __init__(self, factor: int, first: nn.Module) -> None:
        super().__init__()
        self.first, self.up, self.last = first, nn.PixelShuffle(factor), nn.Conv3d(3, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        batch, _, frames, *size = x.shape
        x = self.up(x.transpose(1, 2).reshape(batch * frames, -1, *size))
        return self.last(x.reshape(batch, frames, *x.shape[1:]).transpose(1, 2))


class Tokens(nn.Module):
    """To the places of a video and back."""

    def forward(self, x: Tensor) -> Tensor:
        batch, width, frames, height, breadth = x.shape
        places = x.permute(0, 3, 4, 2, 1).reshape(batch * height * breadth, frames, width)
        places = places.softmax(1)
        return places.reshape(batch, height, breadth, frames, width).permute(0, 4, 3, 1, 2)


def run(model: openvino.Model, inputs: tuple[Tensor, ...]) -> Tensor:
    return torch.from_numpy(open_graph(model, threads=1)([tensor.numpy() for tensor in inputs])[0])


@pytest.mark.parametrize(("factor", "batch"), [(2, 1), (3, 2)])
@torch.no_grad()
def test_shuffled_frames(factor: int, batch: int) -> None:
    torch.manual_seed(0)
    module = FrameShuffle(factor, nn.Sequential(nn.Conv3d(4, 3 * factor**2, 1), nn.ReLU())).eval()
    x = torch.randn(batch, 4, 5, 6, 7)
    plain = convert_like(module, (x,), tuned=False)
    before = run(plain, (x,))
    assert video_shuffles_as_copies(plain) == 1
    assert max(len(op.output(0).get_shape()) for op in plain.get_ordered_ops()) == 5
    assert torch.equal(run(plain, (x,)), before)
    torch.testing.assert_close(before, module(x), atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_channels_that_others_see_stay_where_they_are() -> None:
    module = FrameShuffle(2, nn.Sequential(nn.Conv3d(4, 12, 1), nn.Softmax(1))).eval()
    x = torch.randn(1, 4, 3, 6, 8)
    plain = convert_like(module, (x,), tuned=False)
    assert video_shuffles_as_copies(plain) == 0
    torch.testing.assert_close(run(plain, (x,)), module(x), atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_tokens_of_a_video() -> None:
    module, x = Tokens(), torch.randn(2, 4, 3, 6, 5)
    plain = convert_like(module, (x,), tuned=False)
    assert split_transposes(plain) == 2
    torch.testing.assert_close(run(plain, (x,)), module(x))


@torch.no_grad()
def test_a_whole_network_is_rewritten() -> None:
    torch.manual_seed(0)
    stock = EfficientSCI(in_ch=8, units=1).eval()
    inputs = (torch.rand(1, 12, 10), torch.rand(1, 3, 12, 10), torch.ones(1, 12, 10))
    plain = convert_like(stock, inputs, tuned=False)
    before = run(plain, inputs)
    assert (video_shuffles_as_copies(plain), split_transposes(plain)) == (1, 4)
    torch.testing.assert_close(run(plain, inputs), before, atol=1e-6, rtol=1e-5)

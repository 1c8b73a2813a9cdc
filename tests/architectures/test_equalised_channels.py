"""Channels of very different ranges are brought together on loading, and the network computes what it computed."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qsci_plugins import Placement, make_scheme
from qsci_plugins.architectures.adapted import ChannelScale, equalise_channels
from qsci_plugins.nncf import quantize


class Dense(nn.Module):
    """Joins features of hundredfold ranges before a convolution, as ESRGAN's blocks do."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 12, 3, padding=1)
        self.grown = nn.Conv2d(12, 8, 3, padding=1)
        self.last = nn.Conv2d(20, 3, 3, padding=1)
        with torch.no_grad():
            # of small channels large weights read, as training finds them
            spread = torch.logspace(0, -2, 20)
            self.first.weight *= spread[:12].reshape(-1, 1, 1, 1)
            self.grown.weight *= spread[12:].reshape(-1, 1, 1, 1) / spread[:12].reshape(1, -1, 1, 1)
            self.last.weight /= spread.reshape(1, -1, 1, 1)
            for layer in (self.first, self.grown, self.last):
                assert layer.bias is not None
                layer.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        y = F.leaky_relu(self.first(x), 0.2)
        return self.last(torch.cat([y, F.leaky_relu(self.grown(y), 0.2)], 1))  # type: ignore[no-any-return]


class Twice(Dense):
    """The same module under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.again = self.grown


class WeightAlone(Dense):
    """Uses a weight without calling its layer too."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.last.weight.mean()


class Tied(Dense):
    """One weight in two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.grown = nn.Conv2d(12, 12, 3, padding=1)
        self.tied = nn.Conv2d(12, 12, 3, padding=1)
        self.tied.weight = self.grown.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.tied(self.grown(self.first(x)))[:, :3]  # type: ignore[no-any-return]


class Large(Dense):
    """Takes no picture as small as the synthetic ones."""

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1] < 100:
            raise ValueError("too small")
        return super().forward(x)


class Linear(Dense):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)


@pytest.mark.parametrize("network", [Dense, Twice], ids=lambda kind: kind.__name__)
def test_an_equalised_network_computes_the_same(network: type[nn.Module]) -> None:
    torch.manual_seed(0)
    module, x = network().eval(), torch.rand(2, 3, 24, 40)
    state = copy.deepcopy(module.state_dict())
    equalised = equalise_channels(module)
    assert any(isinstance(m, ChannelScale) for m in equalised.modules())
    with torch.no_grad():
        torch.testing.assert_close(equalised(x), module(x), rtol=1e-4, atol=1e-5)
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, state[name])


@pytest.mark.parametrize("network", [WeightAlone, Tied, Large, Linear], ids=lambda kind: kind.__name__)
def test_a_network_that_scaling_would_change_is_left_alone(network: type[nn.Module]) -> None:
    torch.manual_seed(0)
    module = network().eval()
    assert equalise_channels(module) is module


def test_eight_bits_lose_less_on_equalised_channels() -> None:
    torch.manual_seed(0)
    module = Dense().eval()
    images = [torch.rand(4, 3, 32, 32)]
    scheme: dict[str, Any] = {"name": "adabm", "weight_bits": 8, "activation_bits": 8, "form": "integer"}
    scheme |= {"image_mapping": False, "layer_mapping": False}
    errors = []
    for stock in (module, equalise_channels(module)):
        quantized = quantize(stock, make_scheme(scheme), Placement(targets=("*",)), images, 1.0)
        with torch.no_grad():
            errors.append((quantized.model(images[0]) - module(images[0])).square().mean().item())
    assert errors[1] < errors[0] / 2, errors

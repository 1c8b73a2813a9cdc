"""A network that joins parameters in a tuple, as Swin2SR does with its biases, goes through NNCF."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qsci_plugins.brevitas import backend as brevitas
from qsci_plugins.nncf import backend as nncf
from qsci_plugins.schemes.placement import Placement
from qsci_plugins.schemes.registry import make_scheme


class JoinedBias(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.low, self.high = nn.Parameter(torch.rand(3)), nn.Parameter(torch.rand(3))
        self.last = nn.Conv2d(6, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        bias = torch.cat((self.low, self.high))
        return self.last(F.relu(self.first(x) + bias.view(1, -1, 1, 1)))


def test_both_backends_make_the_same_network() -> None:
    model, batches = JoinedBias().eval(), [torch.rand(2, 3, 16, 16)]
    scheme = {"name": "adabm", "weight_bits": 8, "activation_bits": 8, "image_mapping": False}
    networks = [backend.quantize(model, make_scheme(scheme), Placement(), batches, 1.0) for backend in (nncf, brevitas)]
    assert all(list(quantized.layers) == ["first", "last"] for quantized in networks)
    with torch.no_grad():
        outputs = [quantized.model(batches[0]) for quantized in networks]
    assert torch.allclose(*outputs, atol=1e-5)
    assert (outputs[0] - model(batches[0])).abs().max() < 0.02

"""Layers that a network does not call stay float, in both backends, and everything else goes on."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qsci_plugins.architectures.network import keep_inputs
from qsci_plugins.errors import UserError
from qsci_plugins.schemes.placement import Placement, called_layers, place, place_called
from qsci_plugins.schemes.registry import make_scheme


class Branches(nn.Module):
    """A branch of training alone, a weight used without a call, and an input that is written into."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.borrowed = nn.Conv2d(8, 8, 1)
        self.branch = nn.Conv2d(3, 8, 1)
        self.last = nn.Conv2d(8, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x *= 255
        y = F.relu(self.first(x)) + (self.branch(x) if self.training else 0)
        y = F.conv2d(y, self.borrowed.weight, self.borrowed.bias)
        return self.last(y) / 255


def test_layers_are_called_or_not() -> None:
    model, x = Branches(), torch.rand(1, 3, 8, 8)
    before = x.clone()
    assert called_layers(model, x) == {"first", "last"}
    assert torch.equal(x, before)
    assert model.training
    assert list(place(model, place_called(model, Placement(), x))) == ["first", "last"]
    with pytest.raises(UserError, match="every layer is left in float"):
        place(model, place_called(model, Placement(("branch",)), x))


@pytest.mark.parametrize("backend", ["nncf", "brevitas"])
def test_the_rest_is_quantized_and_calibration_leaves_its_images_alone(backend: str, tmp_path: Path) -> None:
    door = import_module(f"qsci_plugins.{backend}.backend")
    model = keep_inputs(Branches().eval())
    batches = [torch.rand(2, 3, 16, 16) for _ in range(3)]
    before = [batch.clone() for batch in batches]
    scheme = make_scheme({"name": "adabm", "weight_bits": 8, "activation_bits": 8, "image_mapping": False})
    quantized = door.quantize(model, scheme, Placement(), batches, 1.0)
    assert list(quantized.layers) == ["first", "last"]
    assert all(torch.equal(batch, was) for batch, was in zip(batches, before, strict=True))
    with torch.no_grad():
        expected, got = model(batches[0]), quantized.model(batches[0])
        assert (expected - got).abs().max() < 0.15 * expected.std()
        door.save(quantized, tmp_path / "it.pt")
        again = door.load(model, tmp_path / "it.pt")
        assert torch.equal(again.model(batches[0]), got)

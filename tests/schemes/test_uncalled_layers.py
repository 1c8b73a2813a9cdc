"""Layers that a network does not call stay float, in both backends, and everything else goes on."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import qsci_plugins
from qsci_plugins.architectures.network import keep_inputs
from qsci_plugins.errors import UserError
from qsci_plugins.schemes.placement import Placement, called_layers, place, place_called
from qsci_plugins.schemes.registry import make_scheme

STATIC = {
    "name": "adabm",
    "weight_bits": 8,
    "activation_bits": 8,
    "image_mapping": False,
    "layer_mapping": False,
}


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
        y = F.relu(self.first(input=x)) + (self.branch(x) if self.training else 0)
        y = F.conv2d(y, self.borrowed.weight, self.borrowed.bias)
        return self.last(y) / 255


def test_layers_are_called_or_not() -> None:
    model, x = Branches(), torch.rand(1, 3, 8, 8)
    before = x.clone()
    assert called_layers(model, x) == {"first": True, "last": True}
    assert torch.equal(x, before)
    assert model.training
    assert list(place(model, place_called(model, Placement(), x))) == ["first", "last"]
    with pytest.raises(UserError, match="every layer is left in float"):
        place(model, place_called(model, Placement(("branch",)), x))


@pytest.mark.parametrize("backend", ["nncf", "brevitas"])
def test_the_rest_is_quantized_and_calibration_leaves_its_images_alone(backend: str, tmp_path: Path) -> None:
    module = import_module(f"qsci_plugins.{backend}.backend")
    model = keep_inputs(Branches().eval())
    batches = [torch.rand(2, 3, 16, 16) for _ in range(3)]
    before = [batch.clone() for batch in batches]
    scheme = make_scheme({"name": "adabm", "weight_bits": 8, "activation_bits": 8, "image_mapping": False})
    quantized = module.quantize(model, scheme, Placement(), batches, 1.0)
    assert list(quantized.layers) == ["first", "last"]
    assert all(torch.equal(batch, was) for batch, was in zip(batches, before, strict=True))
    with torch.no_grad():
        expected, got = model(batches[0]), quantized.model(batches[0])
        assert (expected - got).abs().max() < 0.15 * expected.std()
        module.save(quantized, tmp_path / "it.pt")
        again = module.load(model, tmp_path / "it.pt")
        assert torch.equal(again.model(batches[0]), got)


class Positions(nn.Module):
    """Its bias is computed by two layers from positions alone, as that of a window's attention is in Swin V2 and GRL."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.register_buffer("positions", torch.rand(1, 64, 2))
        self.table = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 8))
        self.last = nn.Conv2d(8, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        bias = self.table(self.positions).transpose(1, 2).reshape(1, 8, 8, 8)
        return self.last(F.relu(self.first(x)) + bias.repeat(1, 1, x.shape[-2] // 8, x.shape[-1] // 8))


@pytest.mark.parametrize("x", [torch.rand(1, 3, 8, 8), torch.zeros(1, 3, 8, 8)], ids=["photo", "black"])
def test_layers_that_read_no_image_stay_float(x: Tensor) -> None:
    model = Positions()
    assert called_layers(model, x) == {"table.0": False, "table.2": False, "first": True, "last": True}
    assert list(place(model, place_called(model, Placement(), x))) == ["first", "last"]


@pytest.mark.parametrize("backend", ["nncf", "brevitas"])
def test_an_exported_graph_holds_what_reads_no_image_as_constants(backend: str, tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino")
    model, images = Positions(), torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    quantized = qsci_plugins.quantize(model, [images], scheme=STATIC, backend=backend, value_range=1.0)
    qsci_plugins.export(quantized, tmp_path / "model", tile=(16, 16), overlap=0)
    graph = openvino.Core().read_model(next((tmp_path / "model").glob("*.xml")))
    matrix_products = [node.get_friendly_name() for node in graph.get_ordered_ops() if node.get_type_name() == "MatMul"]
    assert matrix_products == []

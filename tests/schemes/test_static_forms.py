"""The static 8-bit form of every scheme: nothing adapts, nothing shifts, no weight is reconstructed."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from qsci_plugins.brevitas import backend
from qsci_plugins.schemes.placement import Placement
from qsci_plugins.schemes.registry import make_scheme
from qsci_plugins.schemes.scheme import LayerQuantizers, Scheme, SchemeConfig

PLACEMENT = Placement(("0", "2"), ("4",))


def stock() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(*(layer for _ in range(3) for layer in (nn.Conv2d(3, 3, 3, padding=1), nn.ReLU())))[:5]


@pytest.mark.parametrize("name", ["adabm", "cadyq", "qsci"])
def test_every_image_gets_eight_bits_and_close_to_the_float_output(name: str) -> None:
    settings = {"attention": []} if name == "qsci" else {}
    static = make_scheme({"name": name, **settings}).static()
    assert static is not None
    images = torch.rand(4, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    model = stock()
    network = backend.quantize(model, static, PLACEMENT, [images], 1.0)
    assert network.input_module is None
    assert not any(layer.activation.input_dependent for layer in network.layers.values() if layer.activation)
    assert network.fab(images).tolist() == [8.0] * 4
    with torch.no_grad():
        expected, got = model(images), network.model(images)
    error = float((got - expected).square().mean() / expected.square().mean())
    assert 1e-7 < error < 1e-3


def test_settings_that_say_what_is_quantized_stay() -> None:
    static = make_scheme({"name": "qsci", "weight_bits": 2, "attention": ["a"]}).static()
    assert static is not None
    dump = static.config.model_dump()
    assert (dump["weight_bits"], dump["activation_bits"], dump["shift"], dump["attention"]) == (8, 8, False, ("a",))


def test_a_static_recipe_is_its_own_static_form() -> None:
    scheme = make_scheme({"name": "adabm"}).static()
    assert scheme is not None
    assert scheme.is_same(scheme.static())
    assert not make_scheme({"name": "adabm"}).is_same(scheme)
    cadyq = make_scheme({"name": "cadyq", "candidates": [8]})
    assert not cadyq.is_same(cadyq.static())  # its selectors still measure every image


def test_a_scheme_that_does_not_say_has_none() -> None:
    class Plain(Scheme):
        def layer(self, module: nn.Module, precision: str) -> LayerQuantizers:
            return LayerQuantizers(None, None)

    assert Plain(SchemeConfig(name="plain")).static() is None

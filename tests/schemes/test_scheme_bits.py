"""What a scheme says of its bits, and its input module of its thresholds, without anybody reading its settings."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from qsci_plugins.schemes.bit_width import ImageToBit
from qsci_plugins.schemes.content import ImageContent
from qsci_plugins.schemes.registry import make_scheme
from qsci_plugins.schemes.scheme import QuantizedNetwork


@pytest.mark.parametrize(
    ("settings", "base", "possible"),
    [
        ({"name": "adabm", "activation_bits": 3}, 3.0, ()),
        ({"name": "qsci", "activation_bits": 6}, 6.0, ()),
        ({"name": "cadyq", "candidates": [4, 5, 8]}, 8.0, (4, 5, 8)),
    ],
)
def test_bits(settings: dict, base: float, possible: tuple[int, ...]) -> None:
    scheme = make_scheme(settings)
    assert scheme.base_bits == base
    assert scheme.possible_bits == possible


def test_thresholds() -> None:
    scheme = make_scheme({"name": "adabm"})
    mapping = ImageToBit(255.0)
    network = QuantizedNetwork(nn.Identity(), "none", scheme, {}, mapping)
    assert not mapping.is_calibrated()
    mapping.update(torch.tensor([2.0, 2.0, 2.0]))
    assert mapping.is_calibrated()
    assert network.thresholds() == (2.0, 2.0)
    for other in (ImageContent(255.0), nn.Identity(), None):
        network.input_module = other
        assert network.thresholds() is None

from __future__ import annotations

import pytest
import torch
from plain import apply_plain
from torch import nn

from qsci_plugins.architectures.sci.efficientsci import EfficientSCI
from qsci_plugins.errors import UserError
from qsci_plugins.schemes.placement import Placement
from qsci_plugins.schemes.registry import make_scheme
from qsci_plugins.schemes.shortcuts import SHORTCUTS, WithShortcut, add_shortcuts, widen_shortcuts


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv3d(2, 4, 3, padding=1),
        nn.LeakyReLU(),
        nn.Conv3d(4, 6, 3, stride=(1, 2, 2), padding=1),
        nn.LeakyReLU(),
        nn.Conv3d(6, 2, 1),
    )


@pytest.mark.parametrize(("height", "width"), [(8, 8), (7, 9)])
def test_shapes_and_the_silent_shortcut(height: int, width: int) -> None:
    stock = network()
    changed = add_shortcuts(stock, ["*"])
    x = torch.randn(2, 2, 3, height, width)
    assert changed(x).shape == stock(x).shape
    for module in changed.modules():
        if isinstance(module, WithShortcut):
            nn.init.zeros_(module.shortcut.weight)
            nn.init.zeros_(module.shortcut.bias)
    torch.testing.assert_close(changed(x), stock(x))
    assert type(stock[0]) is nn.Conv3d


def test_each_branch_has_its_own_activation() -> None:
    changed = add_shortcuts(nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.ReLU()), ["0"])
    block = changed[0]
    with torch.no_grad():
        block.layer.weight.fill_(-1.0)
        block.shortcut.weight.fill_(2.0)
        block.shortcut.bias.zero_()
    # relu(-x) + relu(2x), where relu(-x + 2x) would give x
    assert changed(torch.full((1, 1, 1, 1), 3.0)).item() == 6.0


def test_striding_places_stand_side_by_side() -> None:
    block = WithShortcut(nn.Conv2d(1, 1, 3, stride=2, padding=1))
    with torch.no_grad():
        block.layer.weight.zero_()
        block.layer.bias.zero_()
        block.shortcut.weight.copy_(torch.tensor([1.0, 10.0, 100.0, 1000.0]).reshape(1, 4, 1, 1))
        block.shortcut.bias.zero_()
    x = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    assert block(x).item() == 4321.0


def test_shortcuts_get_eight_bits() -> None:
    torch.manual_seed(0)
    model = add_shortcuts(EfficientSCI(in_ch=8, units=1).eval(), ["fem.*", "vrm.*"])
    mask = torch.rand(1, 2, 8, 8) + 0.1
    inputs = ((mask * torch.rand(1, 2, 8, 8)).sum(1), mask, mask.sum(1))
    quantized = apply_plain(model, make_scheme({"name": "qsci"}), Placement(eight_bit=(SHORTCUTS,)), inputs, 1.0)
    bits = {name: layer.activation.bits for name, layer in quantized.layers.items()}
    assert bits["fem.4.shortcut"] == bits["vrm.4.shortcut"] == 8
    assert bits["fem.4.layer"] == bits["up_conv"] == 4
    assert quantized.model.train()(*inputs).shape == (1, 2, 8, 8)


def test_shortcuts_have_room_to_grow() -> None:
    torch.manual_seed(0)
    model = add_shortcuts(nn.Sequential(nn.Conv2d(4, 4, 3, padding=1)), ["0"]).eval()
    with torch.no_grad():
        model[0].shortcut.weight *= 0.1
    x = torch.rand(2, 4, 8, 8)
    scheme = make_scheme({"name": "qsci", "attention": ()})
    quantized = apply_plain(model, scheme, Placement(eight_bit=(SHORTCUTS,)), x, 1.0)
    shortcut, layer = quantized.layers["0.shortcut"].weight, quantized.layers["0.layer"].weight
    before, grown = layer.step.clone(), 8 * model[0].shortcut.weight
    assert (shortcut(grown) - grown).abs().max() > 0.5 * grown.abs().max()
    widen_shortcuts(quantized, 10)
    assert (shortcut(grown) - grown).abs().max() < 0.01 * grown.abs().max()
    assert torch.equal(layer.step, before)


def test_a_pattern_that_matches_nothing_and_a_stride_in_time() -> None:
    with pytest.raises(UserError, match=r"'fme\.\*'; the nearest are"):
        add_shortcuts(network(), ["fme.*"])
    with pytest.raises(UserError, match="none in time"):
        WithShortcut(nn.Conv3d(1, 1, 3, stride=2))

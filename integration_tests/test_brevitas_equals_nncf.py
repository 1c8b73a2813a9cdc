"""The same network with the same parameters gives the same numbers in Brevitas and in NNCF."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from qsci_plugins.architectures.sci.efficientsci import EfficientSCI
from qsci_plugins.architectures.sr.edsr import EDSR
from qsci_plugins.brevitas import backend as brevitas
from qsci_plugins.nncf import backend as nncf
from qsci_plugins.schemes.bit_selector import BitSelector
from qsci_plugins.schemes.bit_width import record_bits
from qsci_plugins.schemes.content import image_gradient
from qsci_plugins.schemes.placement import Placement
from qsci_plugins.schemes.registry import make_scheme
from qsci_plugins.schemes.scheme import QuantizedNetwork, inputs_of

CASES = [
    ("edsr", "adabm", "integer"),
    ("edsr", "adabm", "faithful"),
    ("edsr", "cadyq", "integer"),
    ("edsr", "cadyq", "faithful"),
    ("edsr", "qsci", "integer"),
    ("edsr", "qsci", "faithful"),
    ("sci", "adabm", "integer"),
    ("sci", "adabm", "faithful"),
    ("sci", "cadyq", "integer"),
    ("sci", "qsci", "integer"),
    ("sci", "qsci", "faithful"),
]


def images(count: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 3, 16, 16, generator=generator) * torch.linspace(20, 255, count)[:, None, None, None]


def snapshots(count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(count, 2, 8, 8, generator=generator) + 0.1
    video = torch.rand(count, 2, 8, 8, generator=generator) * torch.linspace(0.1, 1, count)[:, None, None, None]
    return (mask * video).sum(1), mask, mask.sum(1)


def stock(network: str) -> nn.Module:
    torch.manual_seed(0)
    return EDSR(blocks=2, width=8, scale=2).eval() if network == "edsr" else EfficientSCI(in_ch=8, units=1).eval()


def both(network: str, scheme: str, form: str) -> tuple[QuantizedNetwork, QuantizedNetwork, Any]:
    settings: dict[str, Any] = {"name": scheme, "form": form}
    if scheme == "qsci" and network == "edsr":
        settings["attention"] = []
    if network == "edsr":
        placement = Placement(("body.*.body.*",), ("tail.*",))
        data, value_range = [images(4, 0), images(4, 1)], 255.0
    else:
        placement = Placement(("resdnet_list.*",), ("fem.*",))
        data, value_range = [snapshots(2, 0), snapshots(2, 1)], 1.0
    networks = [
        backend.quantize(stock(network), make_scheme(settings), placement, data, value_range)
        for backend in (brevitas, nncf)
    ]
    with torch.no_grad():
        _move(networks[0])
        _copy(networks[0], networks[1])
    return networks[0], networks[1], data[1]


def _move(network: QuantizedNetwork) -> None:
    """As if it had been trained: nothing at its first value."""
    generator = torch.Generator().manual_seed(2)
    for quantizer in network.quantizers():
        for parameter in quantizer.parameters():
            parameter.mul_(1 + 0.1 * torch.rand(parameter.shape, generator=generator))
        if isinstance(quantizer, BitSelector):
            # fewer bits for the smooth half of the images
            threshold = image_gradient(images(4, 1))[1].sum(1).median()
            quantizer.weight.mul_(1e-4)
            quantizer.weight[:, :2] = torch.tensor([-0.05, 0.0, 0.05])[:, None]
            quantizer.bias.copy_(torch.tensor([0.05, 0.0, -0.05]) * threshold)
    for attention in network.attentions.values():
        for operand in (attention.query, attention.key):
            operand.shift.add_(0.1 * torch.randn(operand.shift.shape, generator=generator))
    for name in network.layers:
        weight = network.model.get_submodule(name).weight
        weight.mul_(1 + 0.1 * torch.rand(weight.shape, generator=generator))


def _copy(source: QuantizedNetwork, target: QuantizedNetwork) -> None:
    assert list(source.layers) == list(target.layers)
    assert set(source.blocks) == set(target.blocks)
    assert set(source.attentions) == set(target.attentions)
    for (name, mine), (_, theirs) in _modules(source, target):
        theirs.load_state_dict(mine.state_dict(), strict=True)
        assert [n for n, _ in mine.named_parameters()] == [n for n, _ in theirs.named_parameters()], name
    for name in source.layers:
        layer, other = (network.model.get_submodule(name) for network in (source, target))
        other.weight.copy_(layer.weight)
        if layer.bias is not None:
            other.bias.copy_(layer.bias)


def _modules(
    source: QuantizedNetwork, target: QuantizedNetwork
) -> list[tuple[tuple[str, nn.Module], tuple[str, nn.Module]]]:
    def of(network: QuantizedNetwork) -> list[tuple[str, nn.Module]]:
        found: list[tuple[str, nn.Module]] = []
        for name, layer in network.layers.items():
            parts = {"activation": layer.activation, "weight": layer.weight, "output": layer.output}
            found += [(f"{name}.{role}", quantizer) for role, quantizer in parts.items() if quantizer is not None]
        found += sorted(network.blocks.items())
        for name, attention in sorted(network.attentions.items()):
            operands = {"query": attention.query, "key": attention.key, "map": attention.map, "value": attention.value}
            found += [(f"{name}.{role}", operand) for role, operand in operands.items()]
        if network.input_module is not None:
            found.append(("input", network.input_module))
        return found

    pairs = list(zip(of(source), of(target), strict=True))
    assert all(mine[0] == theirs[0] for mine, theirs in pairs)
    return pairs


@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_outputs_bits_losses_and_gradients_are_equal(case: tuple[str, str, str]) -> None:
    ours, theirs, data = both(*case)
    inputs = inputs_of(data)
    outputs = []
    for network in (ours, theirs):
        with torch.no_grad():
            outputs.append(network.model.eval()(*inputs))
    output_range = float(outputs[0].max() - outputs[0].min())
    assert float((outputs[0] - outputs[1]).abs().max()) <= 1e-5 * output_range
    bits = ours.fab(inputs)
    assert torch.equal(bits, theirs.fab(inputs))
    if case[1] in ("adabm", "cadyq") and case[0] == "edsr":
        assert bits.unique().numel() > 1

    losses = []
    target = torch.randn(outputs[0].shape, generator=torch.Generator().manual_seed(3)) * output_range
    for network in (ours, theirs):
        network.model.train()
        with record_bits() as ledger:
            output = network.model(*inputs)
        loss = (output - target).square().mean() / output_range**2 + ledger.mean(network.counted()).mean()
        loss = loss + 0.1 * ledger.weighted_total(network.counted()).mean()
        loss.backward()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    for (name, mine), (_, other) in _modules(ours, theirs):
        for (key, a), (_, b) in zip(mine.named_parameters(), other.named_parameters(), strict=True):
            _assert_gradients_equal(f"{name}.{key}", a.grad, b.grad)
    for name in ours.layers:
        layer, other = (network.model.get_submodule(name) for network in (ours, theirs))
        _assert_gradients_equal(f"{name}.weight", layer.weight.grad, other.weight.grad)
        if layer.bias is not None:
            _assert_gradients_equal(f"{name}.bias", layer.bias.grad, other.bias.grad)


def _assert_gradients_equal(name: str, mine: Tensor | None, other: Tensor | None) -> None:
    assert (mine is None) == (other is None), name
    if mine is None or other is None:
        return
    largest = float(torch.maximum(mine.abs().max(), other.abs().max()))
    assert float((mine - other).abs().max()) <= 1e-4 * largest + 1e-9, name

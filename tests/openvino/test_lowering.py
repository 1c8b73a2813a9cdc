"""The lowered network agrees with the quantized one, whatever the bits, signs, grids and layers."""

from __future__ import annotations

from typing import Any

import openvino
import pytest
import torch
from openvino_networks import (
    ADABM_BODY,
    EVERYWHERE,
    calibrated_edsr,
    force_factor,
    integer_layers,
    plain_apply,
    smooth_images,
)
from plain import calibrate
from torch import Tensor, nn

from qsci_plugins.errors import UserError
from qsci_plugins.evaluation.latency import open_graph
from qsci_plugins.openvino.convert import convert
from qsci_plugins.openvino.lowering import layer_bits, lower
from qsci_plugins.schemes.content import image_gradient
from qsci_plugins.schemes.placement import Placement
from qsci_plugins.schemes.quantizer import QParams, Quantizer
from qsci_plugins.schemes.scheme import LayerQuantizers, QuantizedNetwork
from qsci_plugins.schemes.weight import ChannelWeight, limit_weights

BODY_ONLY = Placement(("body.*",))


class Levels(Quantizer):
    """A quantizer with given levels."""

    def __init__(self, scale: float, low: float, high: float, offset: Tensor | None = None) -> None:
        super().__init__()
        self.levels = [torch.tensor(value) for value in (scale, low, high)]
        self.offset = offset
        self.calibrated.fill_(True)

    def qparams(self, x: Tensor) -> QParams:
        scale, low, high = self.levels
        return QParams(scale, self.offset, low, high, torch.tensor(8.0))


def one_layer(layer: nn.Module, activation: Quantizer | None, bits: int = 8) -> tuple[nn.Module, QuantizedNetwork]:
    """A network of a single layer, and itself quantized."""
    stock = nn.Sequential(layer).eval()
    network = plain_apply(stock, {"name": "adabm"}, EVERYWHERE, 1.0)
    weight = None if bits == 0 else ChannelWeight(layer.weight, bits)
    quantizers = LayerQuantizers(activation, weight)
    network.layers["0"] = quantizers
    network.input_module = None
    wrapped = network.model[0]
    wrapped.activation, wrapped.weighting = activation, weight
    network.model._forward_pre_hooks.clear()
    limit_weights(network.layers, network.model)
    return stock, network


def run(lowered: nn.Module, x: Tensor) -> tuple[Tensor, openvino.CompiledModel]:
    """What OpenVINO computes."""
    compiled = open_graph(convert(lowered, x.shape), threads=1)
    return torch.from_numpy(compiled([x.numpy()])[0]), compiled


LAYERS = {
    "conv": lambda: nn.Conv2d(6, 8, 3, padding=1),
    "strided": lambda: nn.Conv2d(6, 8, 3, stride=2, padding=1, bias=False),
    "dilated": lambda: nn.Conv2d(6, 8, 3, padding=2, dilation=2),
    "grouped": lambda: nn.Conv2d(6, 8, 3, padding=1, groups=2),
    "reflected": lambda: nn.Conv2d(6, 8, 3, padding=1, padding_mode="reflect"),
    "valid": lambda: nn.Conv2d(6, 8, 3),
    "3d": lambda: nn.Conv3d(6, 8, 3, padding=1),
    "linear": lambda: nn.Linear(6, 8),
}


def layer_case(name: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(1)
    shape = {"3d": (1, 6, 5, 8, 8), "linear": (1, 9, 6)}.get(name, (1, 6, 12, 12))
    return LAYERS[name](), torch.randn(*shape)


@pytest.mark.parametrize(
    "levels",
    [(0.1, -8, 7), (0.02, -128, 127), (0.02, 0, 255), (0.3, 0, 3), (0.1, -3, 12), (0.02, -37, 218), (0.02, -200, 55)],
)
@pytest.mark.parametrize("name", LAYERS)
@torch.no_grad()
def test_a_layer_of_any_kind_equals_its_fake_quantized_form(name: str, levels: tuple[float, int, int]) -> None:
    layer, x = layer_case(name)
    stock, network = one_layer(layer, Levels(*levels))
    expected = network.model(x)
    lowered = lower(stock, network)
    assert (lowered(x) - expected).abs().max() < 1e-4
    if name in ("conv", "linear", "3d", "reflected"):
        actual, compiled = run(lowered, x)
        assert (actual - expected).abs().max() < 1e-4
        assert all(integer_layers(compiled).values())


@torch.no_grad()
def test_one_weight_step_may_serve_all_channels() -> None:
    layer, x = layer_case("conv")
    stock, network = one_layer(layer, Levels(0.1, -8, 7))
    network.layers["0"].weight = network.model[0].weighting = ChannelWeight(layer.weight, 4, per_channel=False)
    expected = network.model(x)
    actual, compiled = run(lower(stock, network), x)
    assert network.layers["0"].weight.step.numel() == 1
    assert (actual - expected).abs().max() < 1e-4
    assert all(integer_layers(compiled).values())


@pytest.mark.parametrize("name", LAYERS)
@torch.no_grad()
def test_levels_beyond_int8_are_split_exactly(name: str) -> None:
    layer, x = layer_case(name)
    stock, network = one_layer(layer, Levels(0.01, -255, 254))
    expected = network.model(3 * x)
    lowered = lower(stock, network)
    assert lowered[0].weight.integers.dtype == torch.int8
    assert (lowered(3 * x) - expected).abs().max() < 1e-4
    if name in ("conv", "linear"):
        actual, compiled = run(lowered, 3 * x)
        assert (actual - expected).abs().max() < 1e-4
        assert all(integer_layers(compiled).values())


@pytest.mark.parametrize("name", ["conv", "grouped", "valid", "strided", "3d"])
@torch.no_grad()
def test_an_offset_per_channel_is_computed_beside_the_integers(name: str) -> None:
    layer, x = layer_case(name)
    offset = 0.05 * (torch.arange(6.0) / 6 - 0.4).reshape(1, 6, *[1] * (x.dim() - 2))
    stock, network = one_layer(layer, Levels(0.05, -100, 100, offset))
    lowered = lower(stock, network)
    difference = (lowered(x) - network.model(x)).abs()
    inside = difference[(..., *[slice(1, -1)] * (x.dim() - 2))]
    assert inside.max() < 1e-4
    # half a unit of the weights for every padded tap; with groups, half a step of the input
    weight_step = network.layers["0"].weight.step.max()
    allowed = {"valid": 1e-4, "grouped": 0.025 * layer.weight.abs().flatten(1).sum(1).max()}
    assert difference.max() <= allowed.get(name, 0.5 * 0.05 * weight_step * layer.weight[0, 0].numel() + 1e-4)
    if name == "conv":
        actual, compiled = run(lowered, x)
        assert (actual - lowered(x)).abs().max() < 1e-4
        assert all(integer_layers(compiled).values())


@torch.no_grad()
def test_fewer_bits_stay_exact_in_8_bit_arithmetic() -> None:
    identity = nn.Conv2d(4, 4, 1, bias=False)
    identity.weight.copy_(torch.eye(4).reshape(4, 4, 1, 1))
    x = torch.linspace(-2, 2, 4 * 32 * 32).reshape(1, 4, 32, 32)
    for bits in (2, 5, 8):
        high = 2 ** (bits - 1) - 1
        stock, network = one_layer(identity, Levels(1.0 / high, -high - 1, high))
        actual, compiled = run(lower(stock, network), x)
        values = torch.unique((actual * high).round())
        assert values.tolist() == list(range(-high - 1, high + 1)), bits
        assert (actual - network.model(x)).abs().max() < 1e-5
        assert all(integer_layers(compiled).values())


@torch.no_grad()
def test_weights_alone_or_activations_alone() -> None:
    layer, x = layer_case("conv")
    for activation, bits in ((None, 4), (Levels(0.1, -8, 7), 0)):
        stock, network = one_layer(layer, activation, bits)
        assert (run(lower(stock, network), x)[0] - network.model(x)).abs().max() < 1e-4


@pytest.mark.parametrize("factor", [-1, 0, 1])
@pytest.mark.parametrize("settings", [{"weight_bits": 8, "activation_bits": 6}, {}], ids=["w8a6", "w4a4"])
@torch.no_grad()
def test_every_route_equals_torch(settings: dict[str, Any], factor: int) -> None:
    stock, network = calibrated_edsr(settings, BODY_ONLY)
    image = smooth_images(6, 32, seed=3)[4:5]
    force_factor(network, factor)
    expected = network.model(image)
    actual, compiled = run(lower(stock, network, factor), image)
    difference = (actual - expected).abs()
    # a value on a rounding edge may fall to the other side, and then moves its neighbourhood by a step
    assert difference.median() < 1e-3
    assert difference.mean() < 0.1
    others = [lower(stock, network, other)(image) for other in (-1, 0, 1) if other != factor]
    assert all((other - expected).abs().mean() > 10 * difference.mean() for other in others)
    assert integer_layers(compiled) == {name: name in network.layers for name in integer_layers(compiled)}


@torch.no_grad()
def test_head_and_tail_at_8_bits_on_the_grid_of_the_image() -> None:
    stock, network = calibrated_edsr({"weight_bits": 8, "activation_bits": 8}, ADABM_BODY)
    assert bool(network.layers["head.0"].activation.on_grid)
    image = smooth_images(6, 32, seed=3)[4:5]
    force_factor(network, 0)
    expected = network.model(image)
    actual, compiled = run(lower(stock, network), image)
    assert (actual - expected).abs().median() < 1e-2
    assert (actual - expected).abs().mean() < 0.2 * (expected - stock(image)).abs().mean()
    assert set(integer_layers(compiled)) >= set(network.layers)
    assert all(integer_layers(compiled).values())


@torch.no_grad()
def test_bits_chosen_inside_the_graph_for_each_image_of_a_batch() -> None:
    stock, network = calibrated_edsr({}, BODY_ONLY)
    images = smooth_images(6, 24, seed=5)[[0, 3, 5]]
    low, middle, high = sorted(image_gradient(images)[0].tolist())
    network.input_module.lower.fill_((low + middle) / 2)
    network.input_module.upper.fill_((middle + high) / 2)
    bits = [network.fab(image[None]).item() for image in images]
    assert len(set(bits)) == 3
    expected = network.model(images)
    actual, compiled = run(lower(stock, network, None), images)
    assert (actual - expected).abs().median() < 1e-3
    assert (actual - expected).abs().mean() < 0.1
    assert sum(integer_layers(compiled).values()) == len(network.layers)


@torch.no_grad()
def test_trained_tensors_replace_those_of_the_stock_network() -> None:
    stock, network = calibrated_edsr({}, BODY_ONLY)
    before = lower(stock, network)(smooth_images(1, 24))
    network.model.head[0].weight.mul_(1.5)
    network.model.get_submodule("body.0.body.0").layer.bias.add_(3.0)
    moved = lower(stock, network)
    assert torch.equal(moved.head[0].weight, network.model.head[0].weight)
    assert torch.equal(moved.get_submodule("body.0.body.0").bias, network.model.get_submodule("body.0.body.0").bias)
    assert (moved(smooth_images(1, 24)) - before).abs().max() > 1


def test_bits_of_the_layers_by_route() -> None:
    _, network = calibrated_edsr({"layer_mapping": False})
    for factor in (-1, 0, 1):
        bits = layer_bits(network, factor)
        assert bits.pop("head.0") == bits.pop("tail.0.0") == bits.pop("tail.1") == 8
        assert set(bits.values()) == {4 + factor}


def test_what_cannot_run_in_integers_is_refused_with_the_way_out() -> None:
    stock, network = calibrated_edsr({"form": "faithful"})
    with pytest.raises(UserError, match=r"form: integer"):
        lower(stock, network)
    layer, _ = layer_case("conv")
    per_channel = Levels(0.1, -8, 7)
    per_channel.levels[0] = torch.linspace(0.1, 0.2, 6).reshape(1, 6, 1, 1)
    for activation in (per_channel, Levels(0.1, -8, 7, torch.tensor(0.3)), Levels(0.1, -900, 900)):
        stock, network = one_layer(layer, activation)
        with pytest.raises(UserError, match=r"^0: "):
            lower(stock, network)


def test_before_calibration_nothing_is_exported() -> None:
    stock, network = calibrated_edsr()
    network.layers["body.0.body.0"].activation.calibrated.fill_(False)
    with pytest.raises(UserError, match=r"body\.0\.body\.0 is not calibrated"):
        lower(stock, network)
    network = plain_apply(stock, {"name": "adabm"}, EVERYWHERE, 255.0)
    calibrate(network, [smooth_images(4, 24)])
    network.input_module.calibrated.fill_(False)
    with pytest.raises(UserError, match="thresholds"):
        lower(stock, network)

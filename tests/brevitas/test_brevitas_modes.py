"""Brevitas' own tools on our quantizers: layerwise_quantize, calibration_mode, bias_correction_mode, checkpoints."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
from brevitas import config
from brevitas.graph.calibrate import bias_correction_mode, calibration_mode
from brevitas.graph.quantize import layerwise_quantize
from brevitas_networks import images, settings_for, stock
from torch import nn

from qsci_plugins.brevitas import QuantConv2d, apply, attach_scheme, layer_map, network
from qsci_plugins.schemes.placement import Placement
from qsci_plugins.schemes.registry import make_scheme
from qsci_plugins.schemes.scheme import QuantizedNetwork
from qsci_plugins.schemes.weight import PairedWeight

SCHEMES = ["adabm", "cadyq", "qsci"]
FLOAT = ["head", "tail", "sub_mean", "add_mean"]


@pytest.fixture
def ignoring_missing_keys() -> Iterator[None]:
    config.IGNORE_MISSING_KEYS = True
    yield
    config.IGNORE_MISSING_KEYS = False


@torch.no_grad()
def layerwise(scheme_name: str) -> QuantizedNetwork:
    scheme = make_scheme(settings_for("edsr", scheme_name, "integer"))
    model = layerwise_quantize(stock("edsr"), layer_map(scheme), name_blacklist=FLOAT)
    quantized = attach_scheme(model, scheme)
    with calibration_mode(model):
        for seed in range(2):
            model(images(seed=seed))
    return quantized


@pytest.mark.parametrize("name", SCHEMES)
def test_layerwise_quantize_and_calibration_mode_are_all_it_takes(name: str) -> None:
    quantized = layerwise(name)
    assert quantized.calibrated()
    assert list(quantized.layers) == ["body.0.body.0", "body.0.body.2", "body.1.body.0", "body.1.body.2", "body.2"]
    assert isinstance(quantized.model.body[0].body[0], QuantConv2d)
    assert type(quantized.model.head[0]) is nn.Conv2d
    scheme = make_scheme(settings_for("edsr", name, "integer"))
    ours = apply(stock("edsr"), scheme, Placement(("body.*",)), images(1), 255.0)
    with torch.no_grad():
        with calibration_mode(ours.model):
            for seed in range(2):
                ours.model(images(seed=seed))
        assert torch.equal(ours.model(images()), quantized.model(images()))


def test_calibration_mode_sets_the_factors_of_images_and_layers() -> None:
    quantized = layerwise("adabm")
    assert bool(quantized.input_module.calibrated)
    assert not quantized.input_module.observing
    factors = {layer.activation.bit_width.measure.item() for layer in quantized.layers.values()}
    assert len(factors) > 1
    assert quantized.fab(images()).unique().numel() > 1


@pytest.mark.parametrize("name", SCHEMES)
def test_calibration_runs_the_float_network(name: str) -> None:
    quantized, x = layerwise(name), images()
    with torch.no_grad(), calibration_mode(quantized.model):
        torch.testing.assert_close(quantized.model(x), stock("edsr")(x))


@pytest.mark.parametrize("name", SCHEMES)
def test_bias_correction_moves_the_mean_of_every_layer_back(name: str) -> None:
    quantized, x = layerwise(name), images()
    model = quantized.model
    before = {layer: model.get_submodule(layer).bias.clone() for layer in quantized.layers}
    with torch.no_grad():
        with bias_correction_mode(model):
            model(x)
        for layer, bias in before.items():
            assert not torch.equal(model.get_submodule(layer).bias, bias)
        # the first layer sees the same input in both networks, so that its mean is now that of the float one
        layer, float_layer = model.body[0].body[0], stock("edsr").body[0].body[0]
        entering = []
        float_layer.register_forward_pre_hook(lambda _, args: entering.append(args[0]))
        reference = stock("edsr")
        reference.body[0].body[0] = float_layer
        reference(x)
        model(x)
        shift = (layer(entering[0]) - float_layer(entering[0])).mean((0, 2, 3))
        scale = float_layer(entering[0]).abs().mean()
    assert shift.abs().max() < 1e-5 * scale


@pytest.mark.parametrize("name", SCHEMES)
def test_a_strict_reload_is_the_same_network(name: str) -> None:
    quantized = layerwise(name)
    again = layerwise_quantize(stock("edsr", seed=3), layer_map(quantized.scheme), name_blacklist=FLOAT)
    reloaded = attach_scheme(again, quantized.scheme)
    again.load_state_dict(quantized.model.state_dict())
    with torch.no_grad():
        assert torch.equal(again(images()), quantized.model(images()))
    assert torch.equal(reloaded.fab(images()), quantized.fab(images()))
    with pytest.raises(RuntimeError, match="Missing key"):
        again.load_state_dict(stock("edsr").state_dict())


@pytest.mark.usefixtures("ignoring_missing_keys")
@pytest.mark.parametrize("name", SCHEMES)
def test_a_float_checkpoint_changes_weights_and_their_steps_alone(name: str) -> None:
    quantized = layerwise(name)
    other = stock("edsr", seed=7)
    copied = copy.deepcopy(quantized.model)
    copied.load_state_dict(other.state_dict())
    mine = network(copied)
    for layer, quantizers in mine.layers.items():
        weight = copied.get_submodule(layer).weight
        assert torch.equal(weight, other.get_submodule(layer).weight)
        fresh = quantized.scheme.layer(other.get_submodule(layer), "scheme").weight
        if isinstance(fresh, PairedWeight):  # what its input reaches is the network's, not the weight's
            fresh.reach.copy_(quantizers.weight.reach)
        assert torch.equal(quantizers.weight.qparams(weight).scale, fresh.qparams(weight).scale)
        old = quantized.layers[layer].activation.state_dict()
        assert all(torch.equal(value, old[key]) for key, value in quantizers.activation.state_dict().items())
    # and not those of the network that was copied
    weight = quantized.model.body[0].body[0].weight
    fresh = quantized.scheme.layer(stock("edsr").body[0].body[0], "scheme").weight
    if isinstance(fresh, PairedWeight):
        fresh.reach.copy_(quantized.layers["body.0.body.0"].weight.reach)
    assert torch.equal(quantized.layers["body.0.body.0"].weight.qparams(weight).scale, fresh.qparams(weight).scale)


def test_quantizers_switched_off_one_by_one() -> None:
    quantized, x = layerwise("qsci"), images()
    layer = quantized.model.body[0].body[0]
    features = torch.randn(2, 6, 5, 5, generator=torch.Generator().manual_seed(0))
    layer.input_quant.disable_quant = layer.weight_quant.disable_quant = True
    with torch.no_grad():
        torch.testing.assert_close(layer(features), stock("edsr").body[0].body[0](features))
        layer.input_quant.disable_quant = layer.weight_quant.disable_quant = False
        assert not torch.allclose(layer(features), stock("edsr").body[0].body[0](features))
        assert torch.isfinite(quantized.model(x)).all()

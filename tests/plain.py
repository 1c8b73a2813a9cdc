"""A backend for tests of schemes: forward hooks, a forward with the weight quantized, and calibration by running the network."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qsci_plugins.schemes.attention import attach_attention
from qsci_plugins.schemes.placement import Placement
from qsci_plugins.schemes.quantizer import Mode
from qsci_plugins.schemes.scheme import (
    QuantizedNetwork,
    Scheme,
    attach_block,
    check_batches,
    finish_observation,
    first_inputs,
    inputs_of,
    set_mode,
)

__all__ = ["apply_plain", "calibrate"]


def apply_plain(
    model: nn.Module,
    scheme: Scheme,
    placement: Placement,
    example: Tensor | Sequence[Tensor],
    value_range: float = 255.0,
) -> QuantizedNetwork:
    """A copy of the model with the scheme's quantizers in place, nothing calibrated."""
    model = copy.deepcopy(model)
    plan = scheme.plan(model, placement, example)
    for name, quantizers in plan.layers.items():
        layer = model.get_submodule(name)
        if quantizers.activation is not None:
            layer.add_module("activation_quantizer", quantizers.activation)
            layer.register_forward_pre_hook(_before(quantizers.activation))
        if quantizers.weight is not None:
            layer.add_module("weight_quantizer", quantizers.weight)
            layer.forward = _with_weight(layer, quantizers.weight)  # type: ignore[method-assign]
        if quantizers.output is not None:
            layer.register_forward_hook(_after(quantizers.output))
    for name, quantizer in plan.blocks.items():
        attach_block(model.get_submodule(name), quantizer)
    for name, attention in plan.attentions.items():
        attach_attention(model.get_submodule(name), attention)
    images = scheme.input_module(value_range)
    if images is not None:
        model.add_module("image_module", images)
        model.register_forward_pre_hook(lambda module, args: (images(args[0]), *args[1:]))
    return QuantizedNetwork(
        model, "plain", scheme, plan.layers, images, value_range, blocks=plan.blocks, attentions=plan.attentions
    )


def _with_weight(layer: nn.Module, quantizer: nn.Module) -> Any:
    if isinstance(layer, nn.Linear):
        return lambda x: F.linear(x, quantizer(layer.weight), layer.bias)
    assert isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d)
    return lambda x: layer._conv_forward(x, quantizer(layer.weight), layer.bias)


def _before(quantizer: nn.Module) -> Any:
    return lambda module, args: (quantizer(args[0]), *args[1:])


def _after(quantizer: nn.Module) -> Any:
    return lambda module, args, output: quantizer(output)


def relative_error(value: Tensor, expected: Any) -> float:
    """max |value - expected| / max |expected|."""
    expected = torch.as_tensor(expected)
    assert value.shape == expected.shape, (value.shape, expected.shape)
    return ((value.detach() - expected).abs().max() / expected.abs().max().clamp_min(1e-12)).item()


@torch.no_grad()
def calibrate(network: QuantizedNetwork, batches: Sequence[Tensor | Sequence[Tensor]]) -> None:
    """Fits a network's quantizers to calibration inputs, as the backends do: every quantizer observes all batches in float,
    then all are initialised, then the scheme completes them on the first batch.
    """
    check_batches(batches, network.value_range)
    quantizers = network.quantizers()
    network.model.eval()
    set_mode(quantizers, Mode.OBSERVE)
    _observe_images(network.input_module, True)
    for batch in batches:
        network.model(*inputs_of(batch, network.device))
    _observe_images(network.input_module, False)
    set_mode(quantizers, Mode.ON)
    arguments = [inputs_of(batch, network.device) for batch in batches]
    finish_observation(network, arguments[0][0].shape[0])
    network.scheme.complete(network, first_inputs(arguments, network.scheme.batch_images))


def _observe_images(input_module: nn.Module | None, observing: bool) -> None:
    if hasattr(input_module, "observing"):
        input_module.observing = observing  # type: ignore[union-attr,assignment]

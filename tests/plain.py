"""A backend in twenty lines, for tests of schemes: forward hooks and torch's own parametrizations."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from qsci_plugins.schemes.attention import attach_attention
from qsci_plugins.schemes.placement import Placement
from qsci_plugins.schemes.plan import attach_block
from qsci_plugins.schemes.scheme import QuantizedNetwork, Scheme

__all__ = ["apply_plain"]


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
            layer.register_forward_pre_hook(_before(quantizers.activation))
        if quantizers.weight is not None:
            parametrize.register_parametrization(layer, "weight", quantizers.weight, unsafe=True)
        if quantizers.output is not None:
            layer.register_forward_hook(_after(quantizers.output))
    for name, quantizer in plan.blocks.items():
        attach_block(model.get_submodule(name), quantizer)
    for name, attention in plan.attentions.items():
        attach_attention(model.get_submodule(name), attention)
    images = scheme.input_module(value_range)
    if images is not None:
        model.register_forward_pre_hook(lambda module, args: (images(args[0]), *args[1:]))
    return QuantizedNetwork(
        model, "plain", scheme, plan.layers, images, value_range, blocks=plan.blocks, attentions=plan.attentions
    )


def _before(quantizer: nn.Module) -> Any:
    return lambda module, args: (quantizer(args[0]), *args[1:])


def _after(quantizer: nn.Module) -> Any:
    return lambda module, args, output: quantizer(output)


def relative_error(value: Tensor, expected: Any) -> float:
    """max |value - expected| / max |expected|."""
    expected = torch.as_tensor(expected)
    assert value.shape == expected.shape, (value.shape, expected.shape)
    return ((value.detach() - expected).abs().max() / expected.abs().max().clamp_min(1e-12)).item()

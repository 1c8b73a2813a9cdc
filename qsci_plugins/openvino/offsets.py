"""A real offset per input channel, x ~ z * step + offset, in a layer that multiplies integers z only."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["border_weights", "constant_response", "pads_with_zeros"]


def pads_with_zeros(layer: nn.Module) -> bool:
    """Whether a convolution sees zeros around its input."""
    padding = getattr(layer, "padding", 0)
    zeros = getattr(layer, "padding_mode", "zeros") == "zeros"
    return zeros and (padding == "same" or (isinstance(padding, tuple) and any(padding)))


def constant_response(layer: nn.Module, weight: Tensor, offset: Tensor) -> Tensor:
    """What a constant input plane, `offset` in every channel, adds to each output channel: a part of the bias."""
    if isinstance(layer, nn.Linear):
        return F.linear(offset.reshape(-1).expand(layer.in_features), weight)
    channels = int(layer.in_channels)  # type: ignore[arg-type]
    groups = int(layer.groups)  # type: ignore[arg-type]
    sums = weight.flatten(2).sum(2).reshape(groups, -1, channels // groups)
    per_channel = offset.reshape(-1).expand(channels).reshape(groups, -1, 1)
    return (sums @ per_channel).flatten()


def border_weights(integers: Tensor, offset: Tensor) -> Tensor:
    """int8 weights (O,n,...) of n more input channels that are 1 inside the image, and 0 where zeros pad it.

    With them a zero-padded convolution (O,C,...) gets the offset (in steps) inside alone, as it must, to half a unit
    of its weights; the bias would put it on the padding too. n is as small as int8 allows.
    """
    per_channel = offset.reshape(1, -1, *[1] * (integers.dim() - 2))
    rest = (integers.float() * per_channel).sum(1, keepdim=True).round()
    parts = []
    while bool(rest.any()):
        parts.append(rest.clamp(-127, 127))
        rest = rest - parts[-1]
    return torch.cat(parts, 1).to(torch.int8) if parts else integers[:, :0]

"""Quantize and dequantize with straight-through gradients, in one fused autograd function where gradients are needed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["dequantize", "fake_quantize", "quantize", "round_ste"]


def round_ste(x: Tensor) -> Tensor:
    """round(x) (half to even) whose gradient is 1."""
    return x + (x.round() - x).detach()


def quantize(x: Tensor, scale: Tensor, offset: Tensor | None, low: Tensor, high: Tensor) -> Tensor:
    """The integers z = round(clamp((x - offset) / scale, low, high)) as floats; `offset` None stands for 0."""
    z = x / scale if offset is None else (x - offset) / scale
    return torch.minimum(torch.maximum(z, low), high).round()


def dequantize(z: Tensor, scale: Tensor, offset: Tensor | None) -> Tensor:
    """z * scale + offset."""
    return z * scale if offset is None else z * scale + offset


def fake_quantize(x: Tensor, scale: Tensor, offset: Tensor | None, low: Tensor, high: Tensor) -> Tensor:
    """round(clamp((x - offset) / scale, low, high)) * scale + offset, the same shape as x.

    `scale` > 0, `offset`, `low` and `high` broadcast to x. The rounding passes gradients straight through; the clamp
    passes none to a clipped x, and hands those to the bound that clipped it. Every argument gets its exact gradient.
    Without gradients the plain operations run, so that tracing, export and OpenVINO see nothing but those.
    """
    if x.dtype in (torch.bfloat16, torch.float16):
        x = x.float()  # half the digits cannot tell 256 levels apart
    arguments = (x, scale, offset, low, high)
    if torch.is_grad_enabled() and any(a is not None and a.requires_grad for a in arguments):
        return _FakeQuantize.apply(x, scale, offset, low, high)
    return dequantize(quantize(x, scale, offset, low, high), scale, offset)


class _FakeQuantize(torch.autograd.Function):
    """Saves x, y and two masks; every gradient follows from sums over them.

    With g the gradient of y: inside, dy/dx = 1, dy/dscale = (y - x)/scale, dy/doffset = 0; clipped at a bound b, dy/dx = 0,
    dy/db = scale, dy/dscale = (y - offset)/scale, dy/doffset = 1.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, offset: Tensor | None, low: Tensor, high: Tensor) -> Tensor:
        v = x / scale if offset is None else (x - offset).div_(scale)
        above = v > high
        below = v < low
        y = torch.minimum(torch.maximum(v, low, out=v), high, out=v).round_().mul_(scale)
        if offset is not None:
            y += offset
        ctx.save_for_backward(x, y, scale, offset, low, high, above, below)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, y, scale, offset, low, high, above, below = ctx.saved_tensors
        _, needs_scale, needs_offset, needs_low, needs_high = ctx.needs_input_grad
        grad_x = grad.masked_fill(above | below, 0.0)
        grad_scale = grad_offset = grad_low = grad_high = None
        if needs_scale:
            product = (grad * y).addcmul_(grad_x, x, value=-1)
            if offset is not None:
                product.addcmul_(grad - grad_x, offset.expand_as(grad), value=-1)
            grad_scale = product.sum_to_size(scale.shape) / scale
        if needs_offset:
            grad_offset = (grad - grad_x).sum_to_size(offset.shape)
        if needs_low:
            grad_low = (grad * below * scale).sum_to_size(low.shape)
        if needs_high:
            grad_high = (grad * above * scale).sum_to_size(high.shape)
        return grad_x, grad_scale, grad_offset, grad_low, grad_high

"""Quantize and dequantize with straight-through gradients, in one fused autograd function where gradients are needed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["fake_quantize", "quantize", "round_ste"]


def round_ste(x: Tensor) -> Tensor:
    """round(x) (half to even) whose gradient is 1."""
    return x + (x.round() - x).detach()


def quantize(x: Tensor, scale: Tensor, zero_point: Tensor | None, low: Tensor, high: Tensor) -> Tensor:
    """The integers z = round(clamp(x / scale + zero_point, low, high)) as floats; `zero_point` None stands for 0."""
    z = x / scale
    if zero_point is not None:
        z = z + zero_point
    return torch.minimum(torch.maximum(z, low), high).round()


def fake_quantize(x: Tensor, scale: Tensor, zero_point: Tensor | None, low: Tensor, high: Tensor) -> Tensor:
    """(round(clamp(x / scale + zero_point, low, high)) - zero_point) * scale, the same shape as x.

    `scale` > 0, `zero_point`, `low` and `high` broadcast to x. The rounding passes gradients straight through; the clamp
    passes none to a clipped x, and hands those to the bound that clipped it. Every argument gets its exact gradient.
    Without gradients the plain operations run, so that tracing, export and OpenVINO see nothing but those.
    """
    arguments = (x, scale, zero_point, low, high)
    if torch.is_grad_enabled() and any(a is not None and a.requires_grad for a in arguments):
        return _FakeQuantize.apply(x, scale, zero_point, low, high)
    z = quantize(x, scale, zero_point, low, high)
    return (z if zero_point is None else z - zero_point) * scale


class _FakeQuantize(torch.autograd.Function):
    """Saves x, y and two masks only; every other gradient follows from sums of them.

    With v = x/scale + zero_point and g the gradient of y: inside, dy/dx = 1 and dy/dscale = (y - x)/scale; clipped at a
    bound b, dy/dx = 0, dy/db = scale, dy/dscale = y/scale, dy/dzero_point = -scale.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, scale: Tensor, zero_point: Tensor | None, low: Tensor, high: Tensor
    ) -> Tensor:
        v = x / scale
        if zero_point is not None:
            v += zero_point
        above = v > high
        below = v < low
        y = torch.minimum(torch.maximum(v, low, out=v), high, out=v).round_()
        if zero_point is not None:
            y -= zero_point
        y *= scale
        ctx.save_for_backward(x, y, scale, zero_point, low, high, above, below)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, y, scale, zero_point, low, high, above, below = ctx.saved_tensors
        needs = ctx.needs_input_grad
        grad_scale = grad_zero = grad_low = grad_high = None
        grad_above = grad * above if needs[2] or needs[4] else None
        grad_below = grad * below if needs[2] or needs[3] else None
        grad_x = grad.masked_fill(above | below, 0.0)
        if needs[1]:
            grad_scale = _sum_to(grad * y - grad_x * x, scale) / scale
        if needs[2]:
            clipped = grad_above + grad_below  # type: ignore[operator]
            grad_zero = -_sum_to(clipped * scale, zero_point)
        if needs[3]:
            grad_low = _sum_to(grad_below * scale, low)
        if needs[4]:
            grad_high = _sum_to(grad_above * scale, high)
        return grad_x if needs[0] else None, grad_scale, grad_zero, grad_low, grad_high


def _sum_to(x: Tensor, target: Tensor) -> Tensor:
    return x.sum_to_size(target.shape) if x.shape != target.shape else x

"""CADyQ's gradient: the chosen quantizer forward, the softmax mixture of all candidates backward, in one function."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["hard_forward_soft_backward"]


def hard_forward_soft_backward(
    x: Tensor, probabilities: Tensor, scales: Tensor, lows: Tensor, highs: Tensor, choice: Tensor
) -> Tensor:
    """Q_c(x) of each sample's choice c, with the gradients of sum_k p_k Q_k(x).

    Q_k(x) = round(clamp(x / scales[k], lows[k], highs[k])) * scales[k], rounding straight through. `x` (N,...),
    `probabilities` (N,K) out of a softmax, `scales`, `lows`, `highs` (K,), `choice` (N,). Gradients reach x,
    probabilities (up to one constant for each sample, which a softmax does not see) and scales.
    """
    return _Mixture.apply(x, probabilities, scales, lows, highs, choice)


class _Mixture(torch.autograd.Function):
    """Keeps x alone: the candidates are quantized again in the backward pass, which costs no memory.

    On a CPU the work goes sample by sample, whose temporaries stay in the cache: several times faster than whole
    batches.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, probabilities: Tensor, scales: Tensor, lows: Tensor, highs: Tensor, choice: Tensor
    ) -> Tensor:
        ctx.save_for_backward(x, probabilities, scales, lows, highs)
        rows = x.reshape(x.shape[0], -1)
        y = torch.empty_like(rows)
        for part in _parts(rows):
            chosen = choice[part]
            scale, low, high = (bound[chosen].unsqueeze(1) for bound in (scales, lows, highs))
            out = torch.div(rows[part], scale, out=y[part])
            torch.minimum(torch.maximum(out, low, out=out), high, out=out).round_().mul_(scale)
        return y.reshape(x.shape)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, probabilities, scales, lows, highs = ctx.saved_tensors
        rows, flows = x.reshape(x.shape[0], -1), grad.reshape(x.shape[0], -1)
        grad_x = torch.empty_like(rows)
        errors, slopes = torch.empty_like(probabilities), torch.empty_like(probabilities)
        for part in _parts(rows):
            row, flow, share = rows[part], flows[part], grad_x[part].zero_()
            for k in range(scales.numel()):
                v = row / scales[k]
                clamped = v.clamp(lows[k], highs[k])
                clipped = v != clamped
                share.add_(probabilities[part, k : k + 1] * ~clipped)
                # the sum of grad * (Q_k(x) - x), as that of grad * Q_k(x) loses the digits in which candidates differ
                error = _dot(flow, clamped.round_().sub_(v))
                errors[part, k] = error * scales[k]
                slopes[part, k] = error + _dot(flow, v.mul_(clipped))
            share.mul_(flow)
        return grad_x.reshape(x.shape), errors, (probabilities * slopes).sum(0), None, None, None


def _parts(rows: Tensor) -> list[slice]:
    """The batches to work on one after the other."""
    return [slice(i, i + 1) for i in range(rows.shape[0])] if rows.device.type == "cpu" else [slice(None)]


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """The inner product of every row, (N,)."""
    return torch.bmm(a.unsqueeze(1), b.unsqueeze(2)).reshape(-1)

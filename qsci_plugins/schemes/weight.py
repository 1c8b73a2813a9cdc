"""Symmetric weight ranges: AdaBM's per tensor, and the integer form per output channel."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from qsci_plugins.schemes.quantizer import QParams, Quantizer
from qsci_plugins.schemes.rounding import dequantize, quantize
from qsci_plugins.schemes.saturation import PairedWeight

__all__ = ["ChannelWeight", "TensorWeight"]


class TensorWeight(Quantizer):
    """AdaBM's weights: one learned maximum u, 2^bits levels from -u to u (0 is none of them), u by least squared error.

    step = 2u / (2^bits - 1); the candidates for u are max(w) * (1 - k/100), k = 0..49. The published code searches at
    `search_bits`, the body's, for the 8-bit layers too.
    """

    def __init__(self, weight: Tensor, bits: int, search_bits: int | None = None) -> None:
        super().__init__()
        self.bits = search_bits or bits
        self.upper = nn.Parameter(torch.ones(1))
        maximum = weight.detach().max()
        best = min(range(50), key=lambda k: self._error(weight.detach(), maximum * (1 - k / 100)))
        self.bits = bits
        with torch.no_grad():
            self.upper.copy_(maximum * (1 - best / 100))
        self.calibrated.fill_(True)

    def get_settings(self) -> dict[str, Any]:
        return {"bits": self.bits}

    @classmethod
    def from_settings(cls, bits: int) -> TensorWeight:
        return cls(torch.zeros(1), bits)

    def _params(self, upper: Tensor) -> QParams:
        count = upper.new_tensor(2.0**self.bits - 1)
        bits = upper.new_tensor(float(self.bits))
        return QParams(2 * upper / count, -upper, torch.zeros_like(count), count, bits)

    def _error(self, weight: Tensor, upper: Tensor) -> float:
        p = self._params(upper)
        z = quantize(weight, p.scale, p.offset, p.low, p.high)
        return (dequantize(z, p.scale, p.offset) - weight).square().mean().item()

    def qparams(self, x: Tensor) -> QParams:
        return self._params(self.upper)


class ChannelWeight(PairedWeight):
    """Integer weights -n..n with n = 2^(bits-1) - 1 and one learned step per output channel (axis 0), or one for all.

    The steps start at the least squared error of every channel (candidates max|w|/n * (1 - k/100), k = 0..79).
    """

    def __init__(self, weight: Tensor, bits: int, per_channel: bool = True) -> None:
        super().__init__()
        self.bits = bits
        rows = weight.detach().flatten(1) if per_channel else weight.detach().reshape(1, -1)
        bound = float(2 ** (bits - 1) - 1)
        full = rows.abs().amax(1, keepdim=True).clamp_min(1e-12) / bound
        best_error = torch.full_like(full, float("inf"))
        best_step = full.clone()
        for k in range(80):
            step = full * (1 - k / 100)
            error = ((rows / step).clamp(-bound, bound).round() * step - rows).square().mean(1, keepdim=True)
            better = error < best_error
            best_step = torch.where(better, step, best_step)
            best_error = torch.where(better, error, best_error)
        self.step = nn.Parameter(best_step.reshape(-1, *[1] * (weight.dim() - 1)))
        self.calibrated.fill_(True)

    def get_settings(self) -> dict[str, Any]:
        return {"bits": self.bits, "shape": tuple(self.step.shape)}

    @classmethod
    def from_settings(cls, bits: int, shape: tuple[int, ...]) -> ChannelWeight:
        return cls(torch.zeros(shape), bits)

    def full_range(self, x: Tensor) -> QParams:
        bound = self.step.new_tensor(2.0 ** (self.bits - 1) - 1)
        bits = self.step.new_tensor(float(self.bits))
        return QParams(self.tracked("step").abs().clamp_min(1e-12), None, -bound, bound, bits)

"""Symmetric weight ranges: AdaBM's per tensor, and the integer form per output channel."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from qsci_plugins.schemes.fit import least_error, shrinking
from qsci_plugins.schemes.quantizer import QParams, Quantizer
from qsci_plugins.schemes.saturation import PairedWeight

__all__ = ["ChannelWeight", "TensorWeight", "row_steps"]


def row_steps(rows: Tensor, low: float, high: float) -> Tensor:
    """The step (R,1) of each row of (R,values) with the least squared error: max|row| / high * (1 - k/100), k < 80."""
    full = rows.abs().amax(1, keepdim=True).clamp_min(1e-12) / high
    bounds, ratios = (full.new_tensor(low), full.new_tensor(high)), shrinking(80)
    best = least_error(rows, ratios, lambda ratio: QParams(full * ratio, None, *bounds, full), per_row=True)
    return full * full.new_tensor(ratios)[best]


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
        ratios = shrinking(50)
        best = least_error(weight.detach(), ratios, lambda ratio: self._params(maximum * ratio))
        self.bits = bits
        with torch.no_grad():
            self.upper.copy_(maximum * ratios[int(best)])
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
        bound = 2.0 ** (bits - 1) - 1
        step = row_steps(rows, -bound, bound)
        self.step = nn.Parameter(step.reshape(-1, *[1] * (weight.dim() - 1)))
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

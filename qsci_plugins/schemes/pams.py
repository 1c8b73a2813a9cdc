"""PAMS (Li et al., ECCV 2020): symmetric activations with a learned maximum, and CADyQ's max-abs weights."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from qsci_plugins.schemes.fit import least_error, shrinking, with_samples
from qsci_plugins.schemes.quantizer import ObservingQuantizer, QParams, scalars
from qsci_plugins.schemes.weight import PairedWeight

__all__ = ["MaxWeight", "SymmetricActivation", "symmetric_params"]


def symmetric_params(alpha: Tensor, bits: Tensor, signed: Tensor) -> QParams:
    """step = alpha / n with n = 2^(bits-1) - 1 and levels -n..n; for what is never negative n = 2^bits - 1 and 0..n."""
    count = torch.pow(torch.full_like(bits, 2.0), bits - signed) - 1
    return QParams(alpha.clamp_min(1e-8) / count, None, -1.0 * count * signed, count, bits)


class SymmetricActivation(ObservingQuantizer):
    """PAMS: clamps to [-alpha, alpha], alpha learned; one alpha for each of `bits`, of which a subclass chooses.

    Calibration in the published form sets alpha to the mean over a batch of each sample's max|x|, the last batch's; the
    integer form takes the largest of them, shrinks it to the least squared error at every bit-width, and drops the
    negative levels where nothing negative was seen.
    """

    bits: Tensor
    signed: Tensor

    def __init__(self, bit_widths: tuple[int, ...] = (8,), *, integer: bool = False) -> None:
        super().__init__()
        self.bit_widths = tuple(bit_widths)
        self.integer = integer
        self.alpha = nn.Parameter(torch.full((len(bit_widths),), 10.0))
        self.register_buffer("bits", torch.tensor([float(bits) for bits in bit_widths]))
        self.register_buffer("signed", torch.ones(()))

    def qparams(self, x: Tensor) -> QParams:
        alpha = self.tracked("alpha") if self.integer else self.alpha
        return symmetric_params(alpha, self.bits, self.signed)

    def fused(self, x: Tensor, functions: Any) -> tuple[Tensor, Tensor] | None:
        if not self.integer:
            return None
        y = functions.symmetric(self, x, self.alpha, self.bits, self.signed)
        return None if y is None else (y, self.bits)

    def reduce(self, x: Tensor) -> Tensor:
        """[mean over samples of max|x|, max|x|, min x], and values of x in the integer form."""
        peaks = x.abs().flatten(1).amax(1)
        summary = torch.stack([peaks.mean(), peaks.amax(), x.amin()])
        return with_samples(summary, x) if self.integer else summary

    def fit(self, batches: Tensor) -> None:
        if not self.integer:
            # the published code's epoch counter never moves in its first epoch, so every batch replaces the one before
            self.alpha.copy_(batches[-1, 0])
        else:
            self.signed.copy_(batches[:, 2].min() < 0)
            samples, maximum, ratios = batches[:, 3:].flatten(), batches[:, 1].max(), shrinking(80)

            def params(ratio: Any, bits: Tensor) -> QParams:
                return symmetric_params(maximum * ratio, bits, self.signed)

            best = [least_error(samples, ratios, partial(params, bits=bits)) for bits in self.bits]
            self.alpha.copy_(maximum * maximum.new_tensor(ratios)[torch.stack(best)])


class MaxWeight(PairedWeight):
    """CADyQ's weights: step = (max|w| + 1e-8) / (2^(bits-1) - 1), of the tensor or each output channel; not learned."""

    def __init__(self, bits: int = 8, *, per_channel: bool = False) -> None:
        super().__init__()
        self.bits = bits
        self.per_channel = per_channel
        self.calibrated.fill_(True)

    def full_range(self, x: Tensor) -> QParams:
        magnitudes = x.detach().abs()
        maximum = magnitudes.amax(tuple(range(1, x.dim())), keepdim=True) if self.per_channel else magnitudes.amax()
        bound = 2.0 ** (self.bits - 1) - 1
        low, high, bits = scalars(maximum, -bound, bound, float(self.bits))
        return QParams((maximum + 1e-8) / high, None, low, high, bits)

    def fused(self, x: Tensor, functions: Any) -> tuple[Tensor, Tensor] | None:
        if not self.per_channel:
            return None
        return self.fused_rows(x, functions, None, 1 - 2.0 ** (self.bits - 1))

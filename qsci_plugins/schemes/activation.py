"""Learned asymmetric activation range [lower, upper] per tensor, at any bit-width per sample (AdaBM)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from qsci_plugins.schemes.bit_width import BitWidth, levels
from qsci_plugins.schemes.quantizer import QParams, Quantizer, per_sample
from qsci_plugins.schemes.rounding import dequantize, quantize, round_ste

__all__ = ["RangeActivation"]

#: samples of a batch that the search for the best range looks at
_SAMPLES = 4096


class RangeActivation(Quantizer):
    """step = (upper - lower) / (2^bits - 1); [lower, upper] from min and max with an exponential average over batches.

    `integer=False` is the published form: z = round((clamp(x) - lower) / step), a real zero point. `integer=True` is what
    hardware runs: 0 is one of the levels, and at 8 bits the levels are -128..127 where lower < 0 and 0..255 elsewhere.
    `clipping` is the weight of bit-aware clipping (0: none).
    """

    feature_std: Tensor

    def __init__(
        self,
        bit_width: BitWidth,
        *,
        integer: bool,
        momentum: float = 0.9,
        search: bool = False,
        clipping: float = 0.5,
    ) -> None:
        super().__init__()
        self.bit_width = bit_width
        self.integer = integer
        self.momentum = momentum
        self.search = search
        self.clipping = clipping
        self.lower = nn.Parameter(torch.zeros(1))
        self.upper = nn.Parameter(torch.ones(1))
        #: mean over images of the standard deviation of this tensor: what the layer-to-bit mapping ranks
        self.register_buffer("feature_std", torch.zeros(()))
        self._batches: list[Tensor] = []

    def qparams(self, x: Tensor) -> QParams:
        bits = self.bit_width()
        return self._qparams(x, bits, self.lower, self.upper)

    def _qparams(self, x: Tensor, bits: Tensor, lower: Tensor, upper: Tensor) -> QParams:
        bits = per_sample(bits, x)
        count = levels(bits)
        step = ((upper - lower) / count).clamp_min(1e-8)
        if not self.integer:
            return QParams(step, lower, torch.zeros_like(count), count, bits)
        low = round_ste(lower / step)
        eight = bits > 7.5
        signed = lower < 0
        step = torch.where(eight & signed, torch.maximum(-lower / 128, upper / 127).clamp_min(1e-8), step)
        low = torch.where(eight, torch.where(signed, -128.0, 0.0), low)
        return QParams(step, None, low, low + count, bits)

    def reduce(self, x: Tensor) -> Tensor:
        std = x.flatten(1).std(1).mean()
        summary = torch.stack([x.amin(), x.amax(), std])
        if not self.search:
            return summary
        generator = torch.Generator().manual_seed(0)
        picks = torch.randint(x.numel(), (_SAMPLES,), generator=generator).to(x.device)
        return torch.cat([summary, x.flatten()[picks]])

    def update(self, statistics: Tensor) -> None:
        self._batches.append(statistics.detach().cpu())

    @torch.no_grad()
    def initialise(self) -> None:
        if not self._batches:
            return
        batches, self._batches = torch.stack(self._batches), []
        bounds = batches[0, :2]
        for batch in batches[1:]:
            bounds = self.momentum * bounds + (1 - self.momentum) * batch[:2]
        self.lower.copy_(bounds[0])
        self.upper.copy_(bounds[1])
        self.feature_std.copy_(batches[:, 2].mean())
        self._samples = batches[:, 3:].flatten() if self.search else None
        super().initialise()

    def shrink_to(self, x: Tensor, weight: float = 1.0, steps: int = 100) -> None:
        """Moves the range by `weight` towards the shrunken one with the least squared error of x at this layer's bits.

        AdaBM's bit-aware clipping (weight 0.5): candidates (1 - k/steps) * [lower, upper]; the bits are those of an image
        with factor 0.
        """
        bits = self.bit_width.neutral()
        best = (float("inf"), 1.0)
        for k in range(steps):
            ratio = 1 - k / steps
            p = self._qparams(x, bits, self.lower * ratio, self.upper * ratio)
            z = quantize(x, p.scale, p.offset, p.low, p.high)
            error = (dequantize(z, p.scale, p.offset) - x).square().mean().item()
            if error < best[0]:
                best = (error, ratio)
        for bound in (self.lower, self.upper):
            bound.copy_((1 - weight) * bound + weight * (bound * best[1]))

    def refine(self, x: Tensor) -> None:
        if self.clipping:
            self.shrink_to(x, self.clipping)

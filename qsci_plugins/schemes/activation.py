"""Learned asymmetric activation range [lower, upper] per tensor, at any bit-width per sample (AdaBM)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from qsci_plugins.schemes.bit_width import BitWidth, levels
from qsci_plugins.schemes.fit import least_error, shrinking
from qsci_plugins.schemes.quantizer import ObservingQuantizer, QParams, per_sample
from qsci_plugins.schemes.rounding import round_ste

__all__ = ["RangeActivation"]

#: elements of a tensor that the integer form's search for the best range looks at
_SAMPLES = 32768


class RangeActivation(ObservingQuantizer):
    """step = (upper - lower) / (2^bits - 1); [lower, upper] from min and max with an exponential average over batches.

    `integer=False` is the published form: z = round((clamp(x) - lower) / step), a real zero point. `integer=True` is what
    hardware runs: 0 is one of the levels, and at 8 bits the levels are -128..127 for a tensor that was ever negative, and
    0..255 for one that was not. `clipping` is the weight of bit-aware clipping (0: none).
    """

    feature_std: Tensor
    signed: Tensor

    def __init__(
        self,
        bit_width: BitWidth,
        *,
        integer: bool,
        momentum: float = 0.9,
        clipping: float = 0.5,
    ) -> None:
        super().__init__()
        self.bit_width = bit_width
        self.integer = integer
        self.momentum = momentum
        self.clipping = clipping
        self.lower = nn.Parameter(torch.zeros(1))
        self.upper = nn.Parameter(torch.ones(1))
        #: mean over images of the standard deviation of this tensor: what the layer-to-bit mapping ranks
        self.register_buffer("feature_std", torch.zeros(()))
        self.register_buffer("signed", torch.ones((), dtype=torch.bool))

    def qparams(self, x: Tensor) -> QParams:
        bits = self.bit_width()
        if not self.integer:
            return self._qparams(x, bits, self.lower, self.upper)
        size = self.upper - self.lower
        return self._qparams(x, bits, self.tracked("lower", size), self.tracked("upper", size))

    def _qparams(self, x: Tensor, bits: Tensor, lower: Tensor, upper: Tensor) -> QParams:
        bits = per_sample(bits, x)
        count = levels(bits)
        if not self.integer:
            step = ((upper - lower) / count).clamp_min(1e-8)
            return QParams(step, lower, torch.zeros_like(count), count, bits)
        lower = torch.where(self.signed, lower.clamp_max(0), 0.0)
        step = ((upper - lower) / count).clamp_min(1e-8)
        low = round_ste(lower / step)
        eight = (bits > 7.5) & self.signed
        step = torch.where(eight, torch.maximum(-lower / 128, upper / 127).clamp_min(1e-8), step)
        low = torch.where(eight, -128.0, low)
        return QParams(step, None, low, low + count, bits)

    def reduce(self, x: Tensor) -> Tensor:
        return torch.stack([x.amin(), x.amax(), x.flatten(1).std(1).mean()])

    def fit(self, batches: Tensor) -> None:
        bounds = batches[0, :2]
        for batch in batches[1:]:
            bounds = self.momentum * bounds + (1 - self.momentum) * batch[:2]
        self.lower.copy_(bounds[0])
        self.upper.copy_(bounds[1])
        self.feature_std.copy_(batches[:, 2].mean())
        self.signed.fill_(bool(batches[:, 0].min() < 0))

    def refine(self, x: Tensor) -> None:
        """Bit-aware clipping: moves [lower, upper] by `clipping` towards the range with the least squared error of x.

        Published: candidates (1 - k/100) * [lower, upper]. Integer form: both bounds shrink independently, judged on a
        sample of x. The bits are those of an image with factor 0.
        """
        if not self.clipping:
            return
        if self.integer:
            generator = torch.Generator().manual_seed(0)
            picks = torch.randint(x.numel(), (min(x.numel(), _SAMPLES),), generator=generator)
            x = x.flatten()[picks.to(x.device)]
            ratios = shrinking(20, parts=25)
            candidates = [(a, b) for a in (ratios if bool(self.signed) else ratios[:1]) for b in ratios]
        else:
            candidates = [(ratio, ratio) for ratio in shrinking(100)]
        bits = self.bit_width.neutral()
        best = least_error(
            x, candidates, lambda ratios: self._qparams(x, bits, self.lower * ratios[0], self.upper * ratios[1])
        )
        for bound, ratio in zip((self.lower, self.upper), candidates[int(best)], strict=True):
            bound.copy_((1 - self.clipping) * bound + self.clipping * (bound * ratio))

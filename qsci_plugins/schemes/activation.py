"""Learned asymmetric activation range [lower, upper] per tensor, at any bit-width per sample (AdaBM)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from qsci_plugins.schemes.bit_width import BitWidth, MappedBitWidth, StaticBitWidth, levels
from qsci_plugins.schemes.fit import least_error, shrinking
from qsci_plugins.schemes.quantizer import ObservingQuantizer, QParams, per_sample, scalars
from qsci_plugins.schemes.rounding import round_ste

__all__ = ["ImageGridActivation", "RangeActivation"]

#: elements of a tensor that the integer form's search for the best range looks at
_SAMPLES = 32768


class RangeActivation(ObservingQuantizer):
    """step = (upper - lower) / (2^bits - 1); [lower, upper] from min and max with an exponential average over batches.

    The average of single images would cut off what is brighter than most: as many small batches count as one as
    `batches_together` says, one in the published form.

    `integer=False` is the published form: z = round((clamp(x) - lower) / step), a real zero point. `integer=True` is what
    hardware runs: 0 is one of the levels, and they start at 0 for a tensor that was never negative. At 8 bits those of one
    that was are -128..127, or, with `asymmetric`, any 256 levels among which is 0: u8 with an integer zero point.
    `clipping` is the weight of bit-aware clipping (0: none).
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
        asymmetric: bool = False,
    ) -> None:
        super().__init__()
        self.bit_width = bit_width
        self.integer = integer
        self.asymmetric = asymmetric
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
        return self._qparams(x, bits, self.tracked("lower", self._size), self.tracked("upper", self._size))

    def _size(self) -> Tensor:
        return self.upper - self.lower

    def fused(self, x: Tensor, functions: Any) -> tuple[Tensor, Tensor] | None:
        if not self.integer:
            return None
        arguments = self.lower, self.upper, self.signed
        if isinstance(self.bit_width, StaticBitWidth):
            found = functions.ranged(self, x, *arguments, self.bit_width.bits, asymmetric=self.asymmetric)
        elif isinstance(self.bit_width, MappedBitWidth):
            mapped = self.bit_width
            factor = mapped.image_factor()
            found = functions.ranged(
                self, x, *arguments, mapped.base, mapped.measure, factor, mapped.limits, asymmetric=self.asymmetric
            )
        else:
            return None
        return None if found is None else tuple(found)

    def _qparams(self, x: Tensor, bits: Tensor, lower: Tensor, upper: Tensor) -> QParams:
        bits = per_sample(bits, x)
        count = levels(bits)
        if not self.integer:
            step = ((upper - lower) / count).clamp_min(1e-8)
            return QParams(step, lower, torch.zeros_like(count), count, bits)
        lower = torch.where(self.signed, lower.clamp_max(0), 0.0)
        step = ((upper - lower) / count).clamp_min(1e-8)
        low = round_ste(lower / step)
        if self.asymmetric:
            return QParams(step, None, low, low + count, bits)
        eight = torch.logical_and(bits > 7.5, self.signed)  # OpenVINO folds no bitwise "and"
        step = torch.where(eight, torch.maximum(lower / -128, upper / 127).clamp_min(1e-8), step)
        low = torch.where(eight, -128.0, low)
        return QParams(step, None, low, low + count, bits)

    def reduce(self, x: Tensor) -> Tensor:
        return torch.stack([x.amin(), x.amax(), x.flatten(1).std(1).mean()])

    def fit(self, batches: Tensor) -> None:
        parts = batches.split(self.batches_together)
        extremes = [torch.stack([part[:, 0].min(), part[:, 1].max()]) for part in parts]
        bounds = extremes[0]
        for batch in extremes[1:]:
            bounds = self.momentum * bounds + (1 - self.momentum) * batch
        self.lower.copy_(bounds[0])
        # a range of negative numbers alone ends at 0, the level that padding needs
        self.upper.copy_(bounds[1].clamp_min(0.0) if self.asymmetric else bounds[1])
        self.feature_std.copy_(batches[:, 2].mean())
        self.signed.copy_(batches[:, 0].min() < 0)

    def refine(self, x: Tensor) -> None:
        """Bit-aware clipping: moves [lower, upper] by `clipping` towards the range with the least squared error of x.

        Published: candidates (1 - k/100) * [lower, upper]. Integer form: both bounds shrink independently, judged on a
        sample of x. The bits are those of an image with factor 0.
        """
        if not self.clipping:
            return
        if self.integer:
            generator = torch.Generator().manual_seed(0)
            picks = torch.randint(x.numel(), (min(x.numel(), _SAMPLES),), generator=generator, device="cpu")
            x = x.flatten()[picks.to(x.device)]
            ratios = shrinking(20, parts=25)
            candidates = [(a, b) for a in (ratios if bool(self.signed) else ratios[:1]) for b in ratios]
        else:
            candidates = [(ratio, ratio) for ratio in shrinking(100)]
        bits = self.bit_width.neutral()
        best = least_error(
            x, candidates, lambda ratios: self._qparams(x, bits, self.lower * ratios[0], self.upper * ratios[1])
        )
        for bound, ratio in zip((self.lower, self.upper), x.new_tensor(candidates)[best], strict=True):
            bound.copy_((1 - self.clipping) * bound + self.clipping * (bound * ratio))


#: more different values in one channel than this, and the tensor is no 8-bit image
_VALUES = 256


class ImageGridActivation(RangeActivation):
    """Eight bits on the grid `step * k + offset` of the images seen, if they lie on one; an ordinary range if not.

    Networks subtract a mean and scale the image, which moves its 256 values but keeps them on a grid, with an offset of
    its own for every channel. k counts from the value nearest to 0, so that a zero-padded border stays (almost) 0; it
    reaches beyond -128..127, which the lowering runs as two INT8 halves.
    """

    on_grid: Tensor
    step: Tensor
    offset: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, channels: int, *, clipping: float = 0.5, asymmetric: bool = False) -> None:
        super().__init__(StaticBitWidth(8), integer=True, clipping=clipping, asymmetric=asymmetric)
        self.channels = channels
        self.register_buffer("on_grid", torch.zeros((), dtype=torch.bool))
        self.register_buffer("step", torch.ones(()))
        self.register_buffer("offset", torch.zeros(1, channels, 1, 1))
        self.register_buffer("low", torch.zeros(()))
        self.register_buffer("high", torch.zeros(()))

    def qparams(self, x: Tensor) -> QParams:
        if not self.known("on_grid"):
            return super().qparams(x)
        return QParams(self.step, self.offset, self.low, self.high, scalars(self.step, 8.0)[0])

    def fused(self, x: Tensor, functions: Any) -> tuple[Tensor, Tensor] | None:
        return None if self.known("on_grid") else super().fused(x, functions)

    def reduce(self, x: Tensor) -> Tensor:
        """[min, max, mean deviation, step, then of every channel: offsets, minima, maxima]; step 0: on no grid."""
        grid = x.new_zeros(1 + 3 * self.channels)
        rows = x.transpose(0, 1).flatten(1)
        step = _grid_step(rows)
        if step is not None and x.shape[1] == self.channels:
            first = rows[:, :1]
            # half a step counts as +0.5 in every channel, whatever the last digit says
            offset = first - (first / step + 0.499).floor() * step
            position = (rows - offset) / step
            if (position - position.round()).abs().max() < 0.02:
                grid = torch.cat([step.reshape(1), offset.flatten(), rows.amin(1), rows.amax(1)])
        return torch.cat([super().reduce(x), grid])

    def fit(self, batches: Tensor) -> None:
        grids = batches[:, 3:]
        steps, (offsets, minima, maxima) = grids[:, 0], grids[:, 1:].split(self.channels, 1)
        step = steps[0].clamp_min(1e-12)
        apart = (offsets - offsets[0]) / step
        on_grid = (
            (steps > 0).all()
            and ((steps / step - 1).abs() < 0.01).all()
            and ((apart - apart.round()).abs() < 0.02).all()
        )
        self.on_grid.copy_(on_grid)
        if on_grid:
            self.step.copy_(step)
            self.offset.copy_(offsets[0].reshape(1, -1, 1, 1))
            # wherever black and white are, the 256 grey levels of every channel lie between these
            self.low.copy_((((maxima.amax(0) - offsets[0]) / step).round() - 255).amin())
            self.high.copy_((((minima.amin(0) - offsets[0]) / step).round() + 255).amax())
        super().fit(batches)

    def refine(self, x: Tensor) -> None:
        if not self.known("on_grid"):
            super().refine(x)


def _grid_step(rows: Tensor) -> Tensor | None:
    """The spacing of the values of every row (C,M), None where some row has too many or too few of them."""
    steps = []
    for row in rows:
        values = torch.unique(row)
        if not 1 < len(values) <= 2 * _VALUES:
            return None
        gaps = values.diff()
        # what float arithmetic makes of equal grey levels is no step
        gaps = gaps[gaps > 1e-4 * (values[-1] - values[0])]
        steps.append((values[-1] - values[0]) / ((values[-1] - values[0]) / gaps.min()).round())
    return torch.stack(steps).amin()

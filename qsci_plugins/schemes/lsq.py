"""LSQ+ (Bhalgat et al., CVPRW 2020) as Q-SCI uses it: learned steps and zero points with scaled gradients."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, distributed, nn

from qsci_plugins.schemes.fit import least_error, shrinking, with_samples
from qsci_plugins.schemes.quantizer import Mode, ObservingQuantizer, QParams, scalars
from qsci_plugins.schemes.rounding import round_ste
from qsci_plugins.schemes.weight import PairedWeight, row_steps

__all__ = ["LearnedStepActivation", "LearnedStepWeight", "processes", "scale_gradient"]


def scale_gradient(x: Tensor, factor: float | Tensor) -> Tensor:
    """x, whose gradient is multiplied by `factor`."""
    if not (torch.is_grad_enabled() and x.requires_grad):
        return x
    fixed = x.detach()
    return fixed + (x - fixed) * factor


def processes() -> int:
    """How many processes share a training batch, each with as large a part of it as the others."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


class LearnedStepActivation(ObservingQuantizer):
    """z = round(clamp(x / step + zero_point, Qn, Qp)), the zero point rounded; x ~ (z - zero_point) * step.

    [Qn, Qp] is signed where the first batch has a value below -1e-5. Gradients of step and zero point are scaled by
    1 / sqrt(numel(x) * Qp), x that of the whole batch, which several processes may share. `channels` is 1 for a
    tensor-wide pair, else the length of `axis`, one pair for each.

    The published first values, from the first batch: step = 2 mean|x| / sqrt(Qp), zero point = 0.1 (min x - step Qn).
    The integer form takes the range of the calibration batches instead, shrunk to the least squared error, keeps 0
    among the levels, and has no zero point at 8 bits (its levels are -128..127 or 0..255).
    """

    signed: Tensor

    def __init__(self, bits: int, *, channels: int = 1, axis: int = 1, integer: bool = False) -> None:
        super().__init__()
        self.bits = bits
        self.channels = channels
        self.axis = axis
        self.integer = integer
        self.step = nn.Parameter(torch.ones(channels))
        self.zero_point = nn.Parameter(torch.zeros(channels))
        self.register_buffer("signed", torch.zeros(()))

    def limits(self) -> tuple[Tensor, Tensor]:
        """(Qn, Qp), scalars."""
        low = self.signed * -(2.0 ** (self.bits - 1))  # OpenVINO folds no negation
        return low, low + (2.0**self.bits - 1)

    def qparams(self, x: Tensor) -> QParams:
        low, high = self.limits()
        step = self.tracked("step") if self.integer else self.step
        step, zero_point = step.clamp_min(1e-8), round_ste(self.zero_point)
        if torch.is_grad_enabled():
            factor = torch.rsqrt(x.numel() * processes() * high)
            step, zero_point = scale_gradient(step, factor), scale_gradient(zero_point, factor)
        if self.integer:
            zero_point = torch.zeros_like(zero_point) if self.bits == 8 else zero_point.clamp(low, high)
        step, zero_point = self._along(step, x), self._along(zero_point, x)
        return QParams(step, None, low - zero_point, high - zero_point, scalars(self.step, float(self.bits))[0])

    def fused(self, x: Tensor, functions: Any) -> tuple[Tensor, Tensor] | None:
        if not self.integer or self.channels != 1:
            return None
        elements = float(x.numel() * processes())
        y = functions.learned(self, x, self.step, self.zero_point, self.signed, self.bits, elements)
        return None if y is None else (y, scalars(self.step, float(self.bits))[0])

    def _along(self, value: Tensor, x: Tensor) -> Tensor:
        axis = self.axis % x.dim()
        return value if self.channels == 1 else value.reshape(-1, *[1] * (x.dim() - axis - 1))

    def forward(self, x: Tensor) -> Tensor:
        if self.training and self.mode is Mode.ON and not self.known("calibrated"):
            with torch.no_grad():
                self.refine(x.detach())
        return super().forward(x)

    def reduce(self, x: Tensor) -> Tensor:
        """[min, max, mean|x|], and values of x in the integer form."""
        summary = torch.stack([x.amin(), x.amax(), x.abs().mean()])
        return with_samples(summary, x) if self.integer else summary

    def fit(self, batches: Tensor) -> None:
        if self.integer:
            self._search(batches[:, 0].min(), batches[:, 1].max(), batches[:, 3:].flatten())
        else:
            self._start(batches[0])

    def refine(self, x: Tensor) -> None:
        """Takes x for the first batch, in the published form and wherever nothing was observed before."""
        if self.integer and self.known("calibrated"):
            return
        self.update(self.reduce(x))
        self._batches = self._batches[-1:]
        self.initialise()

    def _start(self, first: Tensor) -> None:
        minimum, _, magnitude = first.tolist()
        self.signed.fill_(float(minimum < -1e-5))
        low, high = (bound.item() for bound in self.limits())
        step = 2 * magnitude / math.sqrt(high)
        self.step.fill_(step)
        self.zero_point.fill_(0.1 * (minimum - step * low))

    def _search(self, minimum: Tensor, maximum: Tensor, samples: Tensor) -> None:
        """The step and zero point with the least squared error over the shrunken ranges (1 - k/100) * [min, max]."""
        self.signed.copy_(minimum < -1e-5)
        low, high = self.limits()
        lower, upper = minimum.clamp_max(0.0), maximum.clamp_min(0.0)

        def pair(ratio: Any) -> tuple[Tensor, Tensor]:
            if self.bits == 8:
                step = torch.maximum(lower / torch.where(low < 0, low, -1.0), upper / high) * ratio
            else:
                step = (upper - lower) * ratio / (high - low)
            step = step.clamp_min(1e-8)
            return step, (low - (lower * ratio / step).round()) * (self.bits != 8)

        def params(ratio: Any) -> QParams:
            step, zero_point = pair(ratio)
            return QParams(step, None, low - zero_point, high - zero_point, step)

        ratios = shrinking(80)
        step, zero_point = pair(samples.new_tensor(ratios)[least_error(samples, ratios, params)])
        self.step.copy_(step)
        self.zero_point.copy_(zero_point)


class LearnedStepWeight(PairedWeight):
    """w ~ round(clamp(w / step, -2^(bits-1), 2^(bits-1) - 1)) * step, one learned step for each output channel.

    The gradient of the steps is scaled by 1 / sqrt(numel(w) * Qp). `start` takes a weight: steps of 2 mean|w| /
    sqrt(Qp) as published, or, with `search`, the least squared error of each channel.
    """

    def __init__(self, channels: int, dims: int, bits: int) -> None:
        super().__init__()
        self.channels = channels
        self.dims = dims
        self.bits = bits
        self.step = nn.Parameter(torch.ones(channels, *[1] * (dims - 1)))

    def full_range(self, x: Tensor) -> QParams:
        high = 2.0 ** (self.bits - 1) - 1
        step = scale_gradient(self.tracked("step").clamp_min(1e-12), 1 / math.sqrt(x.numel() * high))
        low, top, bits = scalars(self.step, -high - 1, high, float(self.bits))
        return QParams(step, None, low, top, bits)

    def fused(self, x: Tensor, functions: Any) -> tuple[Tensor, Tensor] | None:
        high = 2.0 ** (self.bits - 1) - 1
        return self.fused_rows(x, functions, self.step, -high - 1, factor=1 / math.sqrt(x.numel() * high))

    @torch.no_grad()
    def start(self, weight: Tensor, *, search: bool = False) -> LearnedStepWeight:
        """Sets the steps from a weight (channels,...) and returns itself."""
        high = 2.0 ** (self.bits - 1) - 1
        if not search:
            self.step.fill_(2 * weight.abs().mean().item() / math.sqrt(high))
        else:
            self.step.copy_(row_steps(weight.flatten(1), -high - 1, high).reshape(self.step.shape))
        self.calibrated.fill_(True)
        return self

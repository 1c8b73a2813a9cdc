"""Symmetric weight ranges: AdaBM's per tensor, and the integer form per output channel."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from qsci_plugins.schemes.content import Content, current_content, set_content
from qsci_plugins.schemes.fit import least_error, shrinking
from qsci_plugins.schemes.quantizer import QParams, Quantizer, scalars
from qsci_plugins.schemes.rounding import to_integers

__all__ = [
    "ChannelWeight",
    "PairedWeight",
    "TensorWeight",
    "highest_level",
    "largest_pair_sums",
    "limit_weights",
    "row_steps",
    "saturating",
]


def row_steps(rows: Tensor, low: float, high: float) -> Tensor:
    """The step (R,1) of each row of (R,values) with the least squared error: max|row| / high * (1 - k/100), k < 80."""
    full = rows.abs().amax(1, keepdim=True).clamp_min(1e-12) / high
    bounds, ratios = (full.new_tensor(low), full.new_tensor(high)), shrinking(80)
    best = least_error(rows, ratios, lambda ratio: QParams(full * ratio, None, *bounds, full), per_row=True)
    return full * full.new_tensor(ratios)[best]


class PairedWeight(Quantizer):
    """Weights of a step for each output channel (or for all), whose pairs never saturate.

    A channel of which a pair would gets a step (almost) twice as large and levels -64..64: 7 bits. `reach`, the largest level of
    the activations as u8, is 0 until `limit_weights` sets it; nothing is limited then. Learned steps start as much larger
    as keeps them from it.
    """

    of_weight: ClassVar[bool] = True

    reach: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("reach", torch.zeros(()))

    @abstractmethod
    def full_range(self, x: Tensor) -> QParams:
        """The parameters that quantize x where pairs cannot saturate."""

    @torch.no_grad()
    def limit(self, x: Tensor, reach: float) -> None:
        """Sets `reach`; a learned step with which a pair of x would saturate grows to the least with which none does."""
        self.reach.fill_(reach)
        step, most = getattr(self, "step", None), self.largest_pair()
        if step is None or most == math.inf:
            return
        p, factors = self.full_range(x), x.new_ones(len(x), *[1] * (x.dim() - 1))
        for factor in _FACTORS:
            saturates = largest_pair_sums(to_integers(x, p.scale * factors, None, p.low, p.high)) > most
            if not saturates.any():
                break
            factors = torch.where(saturates.reshape(factors.shape), factor, factors)
        step.mul_(factors if step.numel() > 1 else factors.max())

    def largest_pair(self) -> float:
        """The most that two levels of one sign should have together, with room for training; infinite where any may."""
        reach: float = self.reach.item()
        return math.floor(_MOST / (reach * _ROOM)) if reach and self.bits >= 8 else math.inf  # type: ignore[operator]

    def qparams(self, x: Tensor) -> QParams:
        p = self.full_range(x)
        if p.offset is not None or self.bits < 8:  # type: ignore[operator]
            return p
        with torch.no_grad():
            z = to_integers(x, p.scale, None, p.low, p.high)
            limited = saturating(z, self.reach).reshape(-1, *[1] * (x.dim() - 1))
        (bound,) = scalars(p.high, float(_LARGEST_WEIGHT))
        return QParams(
            torch.where(limited, _LIMITED_STEP * p.scale, p.scale),
            None,
            torch.where(limited, -1.0 * bound, p.low),
            torch.where(limited, bound, p.high),
            p.bit_width,
        )

    def fused_rows(
        self,
        x: Tensor,
        functions: Any,
        step: Tensor | None,
        low: float,
        *,
        factor: float = 1.0,
        magnitude: bool = False,
    ) -> tuple[Tensor, Tensor] | None:
        """The answer of `fused` where levels start at `low` and the step is learned, or follows from x where None."""
        bits: int = self.bits  # type: ignore[assignment]
        levels = low, 2.0 ** (bits - 1) - 1
        limited = bits >= 8
        y = functions.weight(self, x, step, self.reach, levels, limited=limited, factor=factor, magnitude=magnitude)
        return None if y is None else (y, scalars(self.reach, float(bits))[0])

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # networks saved before there was a limit keep the weights that they were saved with
        state_dict.setdefault(prefix + "reach", torch.zeros(()))
        super()._load_from_state_dict(state_dict, prefix, *args)


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
            self.upper.copy_(maximum * maximum.new_tensor(ratios)[best])
        self.calibrated.fill_(True)

    def get_settings(self) -> dict[str, Any]:
        return {"bits": self.bits}

    @classmethod
    def from_settings(cls, bits: int) -> TensorWeight:
        return cls(torch.zeros(1), bits)

    def _params(self, upper: Tensor) -> QParams:
        count, bits = scalars(upper, 2.0**self.bits - 1, float(self.bits))
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
        bound = 2.0 ** (self.bits - 1) - 1
        low, high, bits = scalars(self.step, -bound, bound, float(self.bits))
        return QParams(self.tracked("step").abs().clamp_min(1e-12), None, low, high, bits)

    def fused(self, x: Tensor, functions: Any) -> tuple[Tensor, Tensor] | None:
        return self.fused_rows(x, functions, self.step, 1 - 2.0 ** (self.bits - 1), magnitude=True)


#: the largest sum of two products
_MOST = 32767
#: how much larger a pair may become in training
_ROOM = 1.03
#: of a step that grows: 127 + 127 end below 123 with the last. Not 2, for the reason of `_LIMITED_STEP`
_FACTORS = [(1 + k / 64) * (1 - 2.0**-20) for k in range(1, 72)]
#: two weights of it times the largest activation, 255, stay below
_LARGEST_WEIGHT = 64
#: of the step of a limited channel. With 2, its largest weight of 127 steps would lie between two levels, 63.5, and torch,
#: a trace of it and OpenVINO, which divide in ways of their own, would not agree on which; exact in float32
_LIMITED_STEP = 2 - 2.0**-19


def largest_pair_sums(integers: Tensor) -> Tensor:
    """The largest |sum| of two weights of one sign that a CPU may pair, for every output channel, (O,).

    `integers` (O,I,...): of I channels (of a group, in a grouped layer) the first and second make a pair, the third and
    fourth, and so on, at one place of the kernel. With an odd I a pair may join two places, so any two are taken.
    """
    rows = integers.flatten(2) if integers.dim() > 2 else integers.unsqueeze(2)
    outputs, inputs, places = rows.shape
    if inputs == 1:
        return rows.new_zeros(outputs)  # what is multiplied channel by channel is added in 32 bits
    if inputs % 2:
        signed = torch.stack([rows.clamp_min(0), rows.clamp_max(0).abs()]).flatten(2)
        return signed.topk(2, dim=2).values.sum(2).amax(0)
    pairs = rows.reshape(outputs, inputs // 2, 2, places)
    sums = torch.maximum(pairs.clamp_min(0).sum(2), pairs.clamp_max(0).sum(2).abs())
    return sums.flatten(1).amax(1)


def saturating(integers: Tensor, reach: Tensor | float) -> Tensor:
    """Which output channels (O,) of integer weights (O,I,...) clip a pair, with activations up to `reach` as u8."""
    return largest_pair_sums(integers) * reach > _MOST


@torch.no_grad()
def highest_level(activation: Quantizer, x: Tensor) -> float:
    """The largest level that an activation quantizer gives any tensor like x, counted as u8.

    Levels that reach below 0 are i8, which a CPU without VNNI moves up by 128, or begin at a zero point (see
    `rounding.int8_bounds`). 255 where they fit none.
    """
    before = current_content()
    tops = [x.new_zeros(())]
    try:
        for factor in (-1.0, 0.0, 1.0):
            set_content(Content(x.new_zeros(1), x.new_zeros(1, 2), x.new_full((1,), factor)))
            p = activation.choices(x)
            low, high = p.low.min(), p.high.max()
            shift = torch.where((low < -128) | (high > 127), -low, 128.0)
            tops.append(high + torch.where(low < 0, shift, 0.0))
    finally:
        set_content(before)
    # read once, as a GPU finishes everything else before
    return min(torch.stack(tops).max().item(), 255.0)


def limit_weights(layers: Mapping[str, Any], model: nn.Module) -> None:
    """Tells the weights of calibrated layers, by name in `model`, how large the activations are that they meet."""
    for name, quantizers in layers.items():
        if isinstance(quantizers.weight, PairedWeight) and quantizers.activation is not None:
            weight = model.get_submodule(name).weight
            assert isinstance(weight, Tensor)
            x = weight.new_zeros(1, *[8] * (weight.dim() - 1))
            quantizers.weight.limit(weight, highest_level(quantizers.activation, x))

"""8-bit weights that give the same sums on CPUs that add two products in 16 bits: all x86 ones without VNNI.

Such a CPU multiplies u8 activations by i8 weights, adds the products of neighbouring input channels in pairs, and clips
each sum to -32768..32767; i8 activations are moved up by 128 to be u8. Two weights of one sign above 64 can exceed that.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from qsci_plugins.schemes.content import Content, current_content, set_content
from qsci_plugins.schemes.quantizer import QParams, Quantizer
from qsci_plugins.schemes.rounding import quantize

__all__ = ["PairedWeight", "highest_level", "largest_pair_sums", "limit_weights", "saturating"]

#: the largest sum of two products
_MOST = 32767
#: two weights of it times the largest activation, 255, stay below
_LARGEST_WEIGHT = 64


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
        signed = torch.stack([rows.clamp_min(0), -rows.clamp_max(0)]).flatten(2)
        return signed.topk(2, dim=2).values.sum(2).amax(0)
    pairs = rows.reshape(outputs, inputs // 2, 2, places)
    sums = torch.maximum(pairs.clamp_min(0).sum(2), -pairs.clamp_max(0).sum(2))
    return sums.flatten(1).amax(1)


def saturating(integers: Tensor, reach: Tensor | float) -> Tensor:
    """Which output channels (O,) of integer weights (O,I,...) clip a pair, with activations up to `reach` as u8."""
    return largest_pair_sums(integers) * reach > _MOST


class PairedWeight(Quantizer):
    """Weights of a step for each output channel (or for all), whose pairs never saturate.

    A channel of which a pair would gets a step twice as large and levels -64..64: 7 bits. `reach`, the largest level of
    the activations as u8, is 0 until `limit_weights` sets it; nothing is limited then.
    """

    of_weight: ClassVar[bool] = True

    reach: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("reach", torch.zeros(()))

    @abstractmethod
    def full_range(self, x: Tensor) -> QParams:
        """The parameters that quantize x where pairs cannot saturate."""

    def qparams(self, x: Tensor) -> QParams:
        p = self.full_range(x)
        if p.offset is not None or self.bits < 8:  # type: ignore[operator]
            return p
        with torch.no_grad():
            z = quantize(x, p.scale, None, p.low, p.high)
            limited = saturating(z, self.reach).reshape(-1, *[1] * (x.dim() - 1))
        bound = p.high.new_tensor(float(_LARGEST_WEIGHT))
        return QParams(
            torch.where(limited, 2 * p.scale, p.scale),
            None,
            torch.where(limited, -bound, p.low),
            torch.where(limited, bound, p.high),
            p.bit_width,
        )

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # networks saved before there was a limit keep the weights that they were saved with
        state_dict.setdefault(prefix + "reach", torch.zeros(()))
        super()._load_from_state_dict(state_dict, prefix, *args)


@torch.no_grad()
def highest_level(activation: Quantizer, x: Tensor) -> float:
    """The largest level that an activation quantizer gives any tensor like x, counted as u8.

    Levels that reach below 0 are i8, which a CPU without VNNI moves up by 128. 255 where they fit neither.
    """
    before = current_content()
    highest = 0.0
    try:
        for factor in (-1.0, 0.0, 1.0):
            set_content(Content(x.new_zeros(1), x.new_zeros(1, 2), x.new_full((1,), factor)))
            p = activation.choices(x)
            top = p.high.max().item() + (128.0 if p.low.min().item() < 0 else 0.0)
            highest = max(highest, top)
    finally:
        set_content(before)
    return min(highest, 255.0)


def limit_weights(layers: Mapping[str, Any], model: nn.Module) -> None:
    """Tells the weights of calibrated layers, by name in `model`, how large the activations are that they meet."""
    for name, quantizers in layers.items():
        if isinstance(quantizers.weight, PairedWeight) and quantizers.activation is not None:
            weight = model.get_submodule(name).weight
            assert isinstance(weight, Tensor)
            x = weight.new_zeros(1, *[8] * (weight.dim() - 1))
            quantizers.weight.reach.fill_(highest_level(quantizers.activation, x))

"""Bits where they matter: layer factors chosen by what each one costs the network's output."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from qsci_plugins.schemes.bit_width import MappedBitWidth

__all__ = ["allocate_layer_factors"]


@torch.no_grad()
def allocate_layer_factors(
    mappings: Sequence[MappedBitWidth], error: Callable[[], Tensor], mean_bits: float
) -> list[int]:
    """Sets every layer factor to -1, 0 or +1, so that the mean over layers of base + factor is at most `mean_bits`.

    `error()` is the output error of the network as it stands. Each layer is measured one bit down and one bit up with all
    others at factor 0; then all start at -1, and the steps that win back most error are taken while bits are left.
    Returns the factors. `mean_bits` below base - 1 gives -1 everywhere: no factor goes further.
    """

    def measured(mapping: MappedBitWidth, factor: int) -> float:
        mapping.measure.fill_(factor)
        value = error().item()
        mapping.measure.fill_(0)
        return value

    for mapping in mappings:
        mapping.measure.fill_(0)
    neutral = error().item()
    to_zero = [measured(mapping, -1) - neutral for mapping in mappings]
    to_one = [neutral - measured(mapping, +1) for mapping in mappings]
    factors = [-1] * len(mappings)
    # the step from -1 to 0 comes before the one from 0 to 1, so it is worth at least as much
    gains = [(max(zero, one), i) for i, (zero, one) in enumerate(zip(to_zero, to_one, strict=True))]
    gains += [(one, i) for i, one in enumerate(to_one)]
    base = sum(float(mapping.base) for mapping in mappings)
    for _, i in sorted(gains, key=lambda gain: (-gain[0], gain[1])):
        if base + sum(factors) + 1 > mean_bits * len(mappings) + 1e-6:
            break
        factors[i] += 1
    for mapping, factor in zip(mappings, factors, strict=True):
        mapping.measure.fill_(factor)
    return factors

"""Bit selectors of a whole network: held at their widest, or spread over their candidates."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from qsci_plugins.data.patches import PatchPairs
from qsci_plugins.schemes.bit_selector import BitSelector
from qsci_plugins.schemes.scheme import QuantizedNetwork

__all__ = ["set_widest", "spread_selectors"]

#: batches whose sensitivities the selectors are spread over
_SPREAD_BATCHES = 8


def set_widest(model: nn.Module, widest: bool) -> None:
    """Makes every selector of a network take its widest candidate, or choose again."""
    for module in model.modules():
        if isinstance(module, BitSelector):
            module.widest_only = widest


@torch.no_grad()
def spread_selectors(network: QuantizedNetwork, pairs: PatchPairs, seed: int, batch: int = 16) -> None:
    """Sets every selector by what it sees in some batches of training patches, the network at its widest bits."""
    seen: dict[BitSelector, list[Tensor]] = {m: [] for m in network.model.modules() if isinstance(m, BitSelector)}

    def look(selector: nn.Module, args: tuple[Tensor, ...]) -> None:
        assert isinstance(selector, BitSelector)
        seen[selector].append(selector.sensitivity(args[0]))

    handles = [selector.register_forward_pre_hook(look) for selector in seen]
    device = next(network.model.parameters()).device
    set_widest(network.model, True)
    try:
        for step in range(_SPREAD_BATCHES):
            low, _ = pairs.draw(seed, step, batch)
            network.model(low.to(device) * (network.value_range / 255))
    finally:
        set_widest(network.model, False)
        for handle in handles:
            handle.remove()
    for selector, values in seen.items():
        selector.spread(torch.cat(values))

"""What the rounding of each layer costs the output."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from qsci_plugins.schemes.quantizer import Mode
from qsci_plugins.schemes.scheme import QuantizedNetwork, set_mode

__all__ = ["costliest", "layer_gains"]


@torch.no_grad()
def layer_gains(quantized: QuantizedNetwork, network: nn.Module, images: Tensor) -> tuple[float, dict[str, float]]:
    """The mean squared error of the quantized output against the float network's, and by how much each layer lowers it.

    Each layer's quantizers are off alone; `images` are (N,3,H,W) in the networks' range. A gain may be negative.
    """
    expected = network(images)

    def error() -> float:
        return (quantized.model(images) - expected).double().square().mean().item()

    whole = error()
    gains: dict[str, float] = {}
    for name, layer in quantized.layers.items():
        set_mode(layer, Mode.OFF)
        try:
            gains[name] = whole - error()
        finally:
            set_mode(layer, Mode.ON)
    return whole, gains


def costliest(gains: Mapping[str, float], error: float, share: float) -> list[str]:
    """The fewest layers whose gains leave `share` of the error, at least one and at most half of them, costliest first."""
    chosen: list[str] = []
    left = error
    for name in sorted(gains, key=lambda name: (-gains[name], name)):
        if chosen and (left <= share * error or 2 * (len(chosen) + 1) > len(gains) or gains[name] <= 0):
            break
        chosen.append(name)
        left -= gains[name]
    return chosen

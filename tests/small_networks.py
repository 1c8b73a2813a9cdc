"""Small settings of every stock network, and inputs for them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from qsci_plugins.architectures.network import Network

__all__ = ["SMALL", "inputs_for"]

#: (architecture, scale, settings): every option of every network, in at least two sizes
SMALL: list[tuple[str, int | None, dict[str, Any]]] = [
    ("edsr", 2, {"blocks": 1, "width": 4}),
    ("edsr", 3, {"blocks": 3, "width": 5, "mean_shift": False}),
    ("edsr", 4, {"blocks": 2, "width": 6, "value_range": 1.0}),
    ("edsr", 8, {"blocks": 1, "width": 4}),
    ("edsr", 1, {"blocks": 1, "width": 4}),
    ("rdn", 2, {"blocks": 2, "layers": 3, "growth": 4, "width": 6}),
    ("rdn", 3, {"blocks": 1, "layers": 2, "growth": 5, "width": 4}),
    ("rdn", 4, {"blocks": 3, "layers": 1, "growth": 4, "width": 8}),
    ("srresnet", 2, {"blocks": 2, "width": 6}),
    ("srresnet", 4, {"blocks": 1, "width": 4, "bias": True, "channel_slopes": True, "shared_slope": True}),
    ("srresnet", 3, {"blocks": 1, "width": 5}),
    ("carn", 2, {"width": 8}),
    ("carn", 3, {"width": 4, "multi_scale": False}),
    ("carn", 4, {"width": 8, "groups": 2, "efficient": True, "recursive": True}),
    ("carn_m", 4, {"width": 8, "multi_scale": False, "value_range": 255.0}),
    ("idn", 2, {"width": 16, "blocks": 2, "diff": 4}),
    ("idn", 3, {"width": 10, "blocks": 1, "diff": 2, "groups": 2, "kernel": 9}),
    ("idn", 4, {"width": 16, "blocks": 1, "diff": 4, "groups": 1}),
    ("efficientsci", None, {"in_ch": 4, "units": 2, "group_num": 2}),
    ("efficientsci", None, {"in_ch": 8, "units": 1, "group_num": 4, "color_ch": 3}),
    ("efficientsci", None, {"in_ch": 2, "units": 1, "group_num": 1}),
    ("stformer", None, {"dim": 4, "units": 1}),
    ("stformer", None, {"dim": 4, "units": 2, "color_ch": 3, "frames": 5, "depth": 1, "heads": 2, "window": 3}),
]


def inputs_for(network: Network, height: int = 12, width: int = 16, frames: int = 4) -> tuple[Tensor, ...]:
    """An image in the network's range, or a measurement with its mask."""
    generator = torch.Generator().manual_seed(height * width + frames)
    if network.task == "sr":
        return (torch.rand(2, 3, height, width, generator=generator) * network.value_range,)
    mask = (torch.rand(2, frames, height, width, generator=generator) > 0.5).float()
    video = torch.rand(2, frames, height, width, generator=generator)
    return (mask * video).sum(1), mask, mask.sum(1).clamp(min=1)

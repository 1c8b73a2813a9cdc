"""Small networks and images for the tests of this folder."""

from __future__ import annotations

import torch
from torch import Tensor

from qsci_plugins.architectures.sr.edsr import EDSR

__all__ = ["batches", "small_edsr"]


def small_edsr(width: int = 8, seed: int = 0) -> EDSR:
    torch.manual_seed(seed)
    return EDSR(blocks=2, width=width, scale=2).eval()


def batches() -> list[Tensor]:
    """Three batches of four images in 0..255, of different contrast."""
    generator = torch.Generator().manual_seed(0)
    return [
        torch.rand(4, 3, 16, 16, generator=generator) * torch.rand(4, 1, 1, 1, generator=generator) * 255
        for _ in range(3)
    ]

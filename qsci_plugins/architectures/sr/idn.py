"""IDN (Hui et al., CVPR 2018, arXiv 1803.09454) under the parameter names of its PyTorch form in CADyQ's code."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qsci_plugins.architectures.network import Network
from qsci_plugins.architectures.stock import StateDict, Stock, count_children

__all__ = ["IDN", "DistillationBlock", "IDNStock"]

SLOPE = 0.05


class FeatureBlock(nn.Module):
    """Two convolutions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.module = nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1),
            nn.LeakyReLU(SLOPE),
            nn.Conv2d(width, width, 3, padding=1),
            nn.LeakyReLU(SLOPE),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.module(x)


class DistillationBlock(nn.Module):
    """Enhancement: of the upper half's output a part goes on to the lower half, the rest joins the block's input.

    Compression: a 1x1 convolution. `diff` is the paper's d, which is also the width / s channels that do not go on.
    """

    def __init__(self, width: int, diff: int, groups: int) -> None:
        super().__init__()
        self.kept = width - diff
        self.enhancement_top = self._three(width, width - diff, width - 2 * diff, width, groups)
        self.enhancement_bottom = self._three(width - diff, width, width - diff, width + diff, groups)
        self.compression = nn.Conv2d(width + diff, width, 1)

    @staticmethod
    def _three(first: int, second: int, third: int, last: int, groups: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(first, second, 3, padding=1),
            nn.LeakyReLU(SLOPE),
            nn.Conv2d(second, third, 3, padding=1, groups=groups),
            nn.LeakyReLU(SLOPE),
            nn.Conv2d(third, last, 3, padding=1),
            nn.LeakyReLU(SLOPE),
        )

    def forward(self, x: Tensor) -> Tensor:
        enhanced = self.enhancement_top(x)
        short, rest = enhanced[:, : self.kept], enhanced[:, self.kept :]
        return self.compression(self.enhancement_bottom(short) + torch.cat([x, rest], dim=1))


class IDN(nn.Module):
    """Maps RGB (N,3,H,W) to (N,3,scale*H,scale*W) in the same range, not clamped: bicubic plus a learned residual."""

    def __init__(
        self,
        *,
        width: int = 64,
        blocks: int = 4,
        diff: int = 16,
        groups: int = 4,
        kernel: int = 17,
        scale: int = 4,
        value_range: float = 255.0,
    ) -> None:
        super().__init__()
        self.scale = scale
        self.value_range = value_range
        self.fblock = FeatureBlock(width)
        self.dblocks = nn.Sequential(*(DistillationBlock(width, diff, groups) for _ in range(blocks)))
        self.deconv = nn.ConvTranspose2d(width, 3, kernel, scale, kernel // 2, scale - 1)

    def forward(self, x: Tensor) -> Tensor:
        enlarged = F.interpolate(x, scale_factor=float(self.scale), mode="bicubic", align_corners=False)
        return enlarged + self.deconv(self.dblocks(self.fblock(x)))


class IDNStock(Stock):
    """All but the scale and the range is in the tensors."""

    name = "idn"
    network = IDN
    tells_scale = False

    def detect(self, state: StateDict) -> bool:
        block = "dblocks.0"
        names = (
            "fblock.module.0.weight",
            f"{block}.enhancement_top.0.weight",
            f"{block}.compression.weight",
            "deconv.weight",
        )
        return all(name in state for name in names)

    def read(self, state: StateDict, scale: int | None = None) -> dict[str, Any]:
        first = "dblocks.0.enhancement_top.0.weight"
        width = state["fblock.module.0.weight"].shape[0]
        narrow = state[first].shape[0]
        determined = {
            "width": width,
            "blocks": count_children(state, "dblocks"),
            "diff": width - narrow,
            "groups": narrow // state["dblocks.0.enhancement_top.2.weight"].shape[1],
            "kernel": state["deconv.weight"].shape[2],
        }
        return determined if scale is None else {**determined, "scale": scale}

    def describe(self, module: nn.Module, settings: dict[str, Any]) -> Network:
        blocks, scale = settings["blocks"], settings["scale"]
        # two convolutions, six in each block, and the deconvolution seen from its last phase
        return Network(
            module=module,
            architecture=self.name,
            scale=scale,
            value_range=settings["value_range"],
            blocks=[f"dblocks.{index}" for index in range(blocks)],
            settings=settings,
            receptive_radius=2 + 6 * blocks + (scale - 1 + settings["kernel"] // 2) // scale,
        )

"""EDSR (Lim et al., CVPRW 2017, arXiv 1707.02921) under the parameter names of EDSR-PyTorch."""

from __future__ import annotations

import math
import re
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from qsci_plugins.architectures.network import Network
from qsci_plugins.architectures.stock import StateDict, Stock, count_children, pixel_shuffle_radius

__all__ = ["EDSR", "EDSRStock", "MeanShift", "ResidualBlock", "Upsampler", "upsampling_factors"]

#: mean RGB of DIV2K in 0..1, which the published code subtracts from its input
DIV2K_MEAN = (0.4488, 0.4371, 0.4040)


class MeanShift(nn.Conv2d):
    """Adds `sign * mean * value_range` to RGB, as the 1x1 convolution whose tensors checkpoints carry."""

    def __init__(self, value_range: float, sign: int, mean: tuple[float, float, float] = DIV2K_MEAN) -> None:
        super().__init__(3, 3, kernel_size=1)
        with torch.no_grad():
            self.weight.copy_(torch.eye(3).view(3, 3, 1, 1))
            self.bias.copy_(sign * value_range * torch.tensor(mean))  # type: ignore[union-attr]
        self.requires_grad_(False)


class ResidualBlock(nn.Module):
    """x + scale * conv(relu(conv(x))), without normalisation."""

    def __init__(self, width: int, residual_scale: float) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(inplace=False),
            nn.Conv2d(width, width, 3, padding=1),
        )
        self.residual_scale = residual_scale

    def forward(self, x: Tensor) -> Tensor:
        branch = self.body(x)
        return x + (branch if self.residual_scale == 1.0 else branch * self.residual_scale)


def upsampling_factors(scale: int) -> list[int]:
    """The pixel shuffles that make up a scale."""
    if scale not in (1, 2, 3, 4, 8):
        raise ValueError(f"pixel shuffles upsample by 1, 2, 3, 4 or 8, not by {scale}")
    return [3] if scale == 3 else [2] * int(math.log2(scale))


class Upsampler(nn.Sequential):
    """Convolution and pixel shuffle, once for every factor 2 of the scale, or once by 3."""

    def __init__(self, scale: int, width: int) -> None:
        layers: list[nn.Module] = []
        for factor in upsampling_factors(scale):
            layers += [nn.Conv2d(width, width * factor**2, 3, padding=1), nn.PixelShuffle(factor)]
        super().__init__(*layers)


class EDSR(nn.Module):
    """Maps RGB (N,3,H,W) in 0..`value_range` to (N,3,scale*H,scale*W) in the same range, not clamped.

    `mean_shift=True` carries the mean as two frozen 1x1 convolutions `sub_mean`, `add_mean` (EDSR-PyTorch);
    with False the mean is a constant of the network and its state dict holds the trained layers alone.
    """

    def __init__(
        self,
        *,
        blocks: int = 16,
        width: int = 64,
        scale: int = 4,
        value_range: float = 255.0,
        residual_scale: float = 1.0,
        mean_shift: bool = True,
    ) -> None:
        super().__init__()
        self.scale = scale
        self.value_range = value_range
        self.sub_mean: nn.Module | None = MeanShift(value_range, -1) if mean_shift else None
        self.add_mean: nn.Module | None = MeanShift(value_range, +1) if mean_shift else None
        mean = value_range * torch.tensor(DIV2K_MEAN).view(1, 3, 1, 1)
        self.register_buffer("mean", mean, persistent=False)
        self.head = nn.Sequential(nn.Conv2d(3, width, 3, padding=1))
        self.body = nn.Sequential(
            *(ResidualBlock(width, residual_scale) for _ in range(blocks)),
            nn.Conv2d(width, width, 3, padding=1),
        )
        self.tail = nn.Sequential(Upsampler(scale, width), nn.Conv2d(width, 3, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        x = x - self.mean if self.sub_mean is None else self.sub_mean(x)
        x = self.head(x)
        x = self.tail(x + self.body(x))
        return x + self.mean if self.add_mean is None else self.add_mean(x)


class EDSRStock(Stock):
    """EDSR-PyTorch's names, with or without its mean shift."""

    name = "edsr"
    network = EDSR
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "edsr_baseline": {"blocks": 16, "width": 64},
        "edsr_large": {"blocks": 32, "width": 256, "residual_scale": 0.1},
    }

    def detect(self, state: StateDict) -> bool:
        names = ("head.0.weight", "body.0.body.0.weight", "body.0.body.2.weight", "tail.1.weight")
        # RCAN shares the outer names, and has a channel attention behind the two convolutions of a block
        return all(name in state for name in names) and not any(name.startswith("body.0.body.3") for name in state)

    def read(self, state: StateDict, scale: int | None = None) -> dict[str, Any]:
        width = state["head.0.weight"].shape[0]
        growth = [state[name].shape[0] // width for name in state if re.fullmatch(r"tail\.0\.\d+\.weight", name)]
        determined: dict[str, Any] = {
            "blocks": count_children(state, "body") - 1,
            "width": width,
            "scale": math.isqrt(math.prod(growth)),
            "mean_shift": "sub_mean.weight" in state,
        }
        shift = state["sub_mean.bias"].abs().max().item() if determined["mean_shift"] else 0.0
        if shift > 0:
            determined["value_range"] = 255.0 if shift > 2 else 1.0
        return determined

    def published(self, determined: dict[str, Any]) -> dict[str, Any]:
        return {"residual_scale": 0.1} if determined["width"] >= 256 else {}

    def describe(self, module: nn.Module, settings: dict[str, Any]) -> Network:
        blocks, scale = settings["blocks"], settings["scale"]
        reach = 2 + 2 * blocks + pixel_shuffle_radius(upsampling_factors(scale))
        return Network(
            module=module,
            architecture=self.name,
            scale=scale,
            value_range=settings["value_range"],
            blocks=[f"body.{index}" for index in range(blocks)],
            settings=settings,
            receptive_radius=math.ceil(reach),
        )

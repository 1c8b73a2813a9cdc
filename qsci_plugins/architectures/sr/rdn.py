"""RDN (Zhang et al., CVPR 2018, arXiv 1802.08797) under the parameter names of EDSR-PyTorch."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from qsci_plugins.architectures.network import Network
from qsci_plugins.architectures.stock import StateDict, Stock, count_children, pixel_shuffle_radius

__all__ = ["RDN", "DenseLayer", "RDNStock", "ResidualDenseBlock"]


class DenseLayer(nn.Module):
    """A convolution's features appended to its input."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(width, growth, 3, padding=1), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.conv(x)], dim=1)


class ResidualDenseBlock(nn.Module):
    """Dense layers, fused by a 1x1 convolution and added to the input."""

    def __init__(self, width: int, growth: int, layers: int) -> None:
        super().__init__()
        self.convs = nn.Sequential(*(DenseLayer(width + index * growth, growth) for index in range(layers)))
        self.LFF = nn.Conv2d(width + layers * growth, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.LFF(self.convs(x))


class RDN(nn.Module):
    """Maps RGB (N,3,H,W) to (N,3,scale*H,scale*W) in the same range, not clamped. It subtracts no mean.

    `width` G0, `growth` G, `blocks` D, `layers` C of the paper; scale 2, 3 or 4.
    """

    def __init__(
        self,
        *,
        blocks: int = 16,
        layers: int = 8,
        growth: int = 64,
        width: int = 64,
        scale: int = 4,
        value_range: float = 255.0,
    ) -> None:
        super().__init__()
        self.scale = scale
        self.value_range = value_range
        self.SFENet1 = nn.Conv2d(3, width, 3, padding=1)
        self.SFENet2 = nn.Conv2d(width, width, 3, padding=1)
        self.RDBs = nn.ModuleList(ResidualDenseBlock(width, growth, layers) for _ in range(blocks))
        self.GFF = nn.Sequential(nn.Conv2d(blocks * width, width, 1), nn.Conv2d(width, width, 3, padding=1))
        upsampler: list[nn.Module] = []
        channels = width
        for factor in shuffles(scale):
            upsampler += [nn.Conv2d(channels, growth * factor**2, 3, padding=1), nn.PixelShuffle(factor)]
            channels = growth
        self.UPNet = nn.Sequential(*upsampler, nn.Conv2d(growth, 3, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        first = self.SFENet1(x)
        x = self.SFENet2(first)
        outputs = []
        for block in self.RDBs:
            x = block(x)
            outputs.append(x)
        return self.UPNet(first + self.GFF(torch.cat(outputs, dim=1)))


def shuffles(scale: int) -> list[int]:
    """RDN's pixel shuffles: one by 2 or 3, or two by 2."""
    if scale not in (2, 3, 4):
        raise ValueError(f"RDN upsamples by 2, 3 or 4, not by {scale}")
    return [2, 2] if scale == 4 else [scale]


class RDNStock(Stock):
    """Configurations A and B of the published code, or any other."""

    name = "rdn"
    network = RDN
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "rdn_a": {"blocks": 20, "layers": 6, "growth": 32},
        "rdn_b": {"blocks": 16, "layers": 8, "growth": 64},
    }

    def detect(self, state: StateDict) -> bool:
        names = (
            "SFENet1.weight",
            "RDBs.0.convs.0.conv.0.weight",
            "RDBs.0.LFF.weight",
            "GFF.1.weight",
            "UPNet.0.weight",
        )
        return all(name in state for name in names)

    def read(self, state: StateDict, scale: int | None = None) -> dict[str, Any]:
        growth = state["RDBs.0.convs.0.conv.0.weight"].shape[0]
        ratio = state["UPNet.0.weight"].shape[0] // growth
        return {
            "blocks": count_children(state, "RDBs"),
            "layers": count_children(state, "RDBs.0.convs"),
            "growth": growth,
            "width": state["SFENet1.weight"].shape[0],
            "scale": 4 if "UPNet.4.weight" in state else math.isqrt(ratio),
        }

    def describe(self, module: nn.Module, settings: dict[str, Any]) -> Network:
        blocks = settings["blocks"]
        reach = 3 + blocks * settings["layers"] + pixel_shuffle_radius(shuffles(settings["scale"]))
        return Network(
            module=module,
            architecture=self.name,
            scale=settings["scale"],
            value_range=settings["value_range"],
            blocks=[f"RDBs.{index}" for index in range(blocks)],
            settings=settings,
            receptive_radius=math.ceil(reach),
        )

"""EfficientSCI (Wang et al., CVPR 2023, arXiv 2305.10006) under its published parameter names."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from qsci_plugins.architectures.network import Network
from qsci_plugins.architectures.sci.initial import mean_plus_masked
from qsci_plugins.architectures.stock import StateDict, Stock, count_children

__all__ = ["CFormer", "EfficientSCI", "EfficientSCIStock", "ResDNet", "TemporalAttention"]

#: of every published size; tensors do not tell it
HEADS = 4


class TemporalAttention(nn.Module):
    """Attention between the frames at one place, in half the channels. Maps (places, T, C) to the same shape."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % (2 * heads):
            raise ValueError(f"{heads} heads in half of {width} channels are not whole channels each")
        self.heads = heads
        # as published: by the channels of a head before the halving
        self.scale = (width // heads) ** -0.5
        self.qkv = nn.Linear(width, width // 2 * 3, bias=False)
        self.proj = nn.Linear(width // 2, width)

    def forward(self, x: Tensor) -> Tensor:
        places, frames, width = x.shape
        head_width = width // 2 // self.heads
        q, k, v = self.qkv(x).reshape(places, frames, 3, self.heads, head_width).permute(2, 0, 3, 1, 4).unbind(0)
        # scaled after the product, so that quantizers of q and k see them as Q-SCI's do
        attention = (q @ k.transpose(-2, -1)) * self.scale
        attention = attention.softmax(dim=-1)
        return self.proj((attention @ v).transpose(1, 2).reshape(places, frames, width // 2))


class CFormer(nn.Module):
    """Spatial convolutions and temporal attention side by side, then a convolutional feed-forward."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.scb = nn.Sequential(
            nn.Conv3d(width, width, (1, 3, 3), padding=(0, 1, 1)),
            nn.LeakyReLU(),
            nn.Conv3d(width, width, (1, 3, 3), padding=(0, 1, 1)),
        )
        self.tsab = TemporalAttention(width, heads)
        self.ffn = nn.Sequential(nn.Conv3d(width, width, 3, padding=1), nn.LeakyReLU(), nn.Conv3d(width, width, 1))

    def forward(self, x: Tensor) -> Tensor:
        batch, width, frames, height, breadth = x.shape
        places = x.permute(0, 3, 4, 2, 1).reshape(batch * height * breadth, frames, width)
        attended = self.tsab(places).reshape(batch, height, breadth, frames, width).permute(0, 4, 3, 1, 2)
        x = self.scb(x) + attended + x
        return self.ffn(x) + x


class ResDNet(nn.Module):
    """The channels in groups, a CFormer for each, every one fed with all the earlier ones' outputs."""

    def __init__(self, width: int, groups: int, heads: int) -> None:
        super().__init__()
        if width % groups:
            raise ValueError(f"{width} channels do not part into {groups} groups")
        group = width // groups
        self.cformer_list = nn.ModuleList(CFormer(group, heads) for _ in range(groups))
        self.dense_conv = nn.ModuleList(
            nn.Sequential(nn.Conv3d(group * (count + 1), group, 1), nn.LeakyReLU()) for count in range(1, groups)
        )
        self.last_conv = nn.Conv3d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        first, *others = x.chunk(len(self.cformer_list), dim=1)
        outputs = [self.cformer_list[0](first)]
        for part, dense, cformer in zip(others, self.dense_conv, list(self.cformer_list)[1:], strict=True):
            outputs.append(cformer(dense(torch.cat([*outputs, part], dim=1))))
        return x + self.last_conv(torch.cat(outputs, dim=1))


class EfficientSCI(nn.Module):
    """Reconstructs T frames from one coded snapshot.

    measurement (N,H,W), mask (N,T,H,W), mask_sum (N,H,W) without zeros; H and W even; frames in 0..1, the measurement
    being their masked sum. Returns (N,T,H,W), or (N,3,T,H,W) with `color_ch=3`, whose measurement is a Bayer mosaic.
    Any T. Not clamped.
    """

    def __init__(self, *, in_ch: int = 32, units: int = 8, group_num: int = 2, color_ch: int = 1) -> None:
        super().__init__()
        self.fem = nn.Sequential(
            nn.Conv3d(1, in_ch, (3, 7, 7), padding=(1, 3, 3)),
            nn.LeakyReLU(),
            nn.Conv3d(in_ch, in_ch * 2, 3, padding=1),
            nn.LeakyReLU(),
            nn.Conv3d(in_ch * 2, in_ch * 4, 3, stride=(1, 2, 2), padding=1),
            nn.LeakyReLU(),
        )
        self.resdnet_list = nn.ModuleList(ResDNet(in_ch * 4, group_num, HEADS) for _ in range(units))
        self.up_conv = nn.Conv3d(in_ch * 4, in_ch * 8, 1)
        self.up = nn.PixelShuffle(2)
        self.vrm = nn.Sequential(
            nn.Conv3d(in_ch * 2, in_ch * 2, 3, padding=1),
            nn.LeakyReLU(),
            nn.Conv3d(in_ch * 2, in_ch, 1),
            nn.LeakyReLU(),
            nn.Conv3d(in_ch, color_ch, 3, padding=1),
        )

    def forward(self, measurement: Tensor, mask: Tensor, mask_sum: Tensor) -> Tensor:
        x = self.fem(mean_plus_masked(measurement, mask, mask_sum))
        for block in self.resdnet_list:
            x = block(x)
        x = self.up_conv(x)
        batch, width, frames, height, breadth = x.shape
        # frame by frame, as exporters know pixel shuffles of images alone
        x = self.up(x.transpose(1, 2).reshape(batch * frames, width, height, breadth))
        x = x.reshape(batch, frames, width // 4, height * 2, breadth * 2).transpose(1, 2)
        x = self.vrm(x)
        return x.squeeze(1)


class EfficientSCIStock(Stock):
    """Tiny, small and base are recognised by their tensors."""

    name = "efficientsci"
    network = EfficientSCI
    task = "sci"
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "efficientsci_t": {"in_ch": 16, "units": 8, "group_num": 2},
        "efficientsci_s": {"in_ch": 32, "units": 8, "group_num": 2},
        "efficientsci_b": {"in_ch": 64, "units": 8, "group_num": 4},
    }

    def detect(self, state: StateDict) -> bool:
        names = ("fem.0.weight", "vrm.4.weight", "resdnet_list.0.cformer_list.0.tsab.qkv.weight")
        # an 8-bit Q-SCI checkpoint has the same names, and the steps of its quantizers besides
        return all(name in state for name in names) and "fem.0.alpha" not in state

    def read(self, state: StateDict, scale: int | None = None) -> dict[str, Any]:
        return {
            "in_ch": state["fem.0.weight"].shape[0],
            "units": count_children(state, "resdnet_list"),
            "group_num": count_children(state, "resdnet_list.0.cformer_list"),
            "color_ch": state["vrm.4.weight"].shape[0],
        }

    def describe(self, module: nn.Module, settings: dict[str, Any]) -> Network:
        # three 3x3 convolutions in each CFormer, all of them in a row, at half the resolution
        half = 3 * settings["group_num"] * settings["units"]
        return Network(
            module=module,
            architecture=self.name,
            scale=1,
            value_range=1.0,
            channels=settings["color_ch"],
            blocks=[f"resdnet_list.{index}" for index in range(settings["units"])],
            task="sci",
            settings=settings,
            size_multiple=2,
            # 4 before the strided convolution, 2 after the pixel shuffle, 2 between the two grids
            receptive_radius=2 * half + 8,
        )

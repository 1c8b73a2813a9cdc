"""STFormer (Wang et al., TPAMI 2022, arXiv 2209.01578) under its published parameter names."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qsci_plugins.architectures.network import Network
from qsci_plugins.architectures.sci.initial import projected
from qsci_plugins.architectures.sci.windows import (
    merge_windows,
    part_windows,
    relative_positions,
    shift_mask,
)
from qsci_plugins.architectures.stock import StateDict, Stock, count_children

__all__ = ["STFormer", "STFormerBlock", "STFormerStock", "SpaceAttention", "TimeAttention"]


class Attention(nn.Module):
    """Attention among n tokens with a learned bias for every relative position. Maps (B,n,C) to the same shape.

    `inner` is the width of queries, keys and values. `grid` is the shape of the tokens' grid; fewer tokens than it
    holds take its first positions.
    """

    def __init__(self, width: int, inner: int, heads: int, grid: tuple[int, ...]) -> None:
        super().__init__()
        if inner % heads:
            raise ValueError(f"{inner} channels do not part into {heads} heads")
        self.heads = heads
        # as published, also where `inner` is half the width
        self.scale = (width // heads) ** -0.5
        positions = math.prod(2 * size - 1 for size in grid)
        self.relative_position_bias_table = nn.Parameter(torch.zeros(positions, heads))
        self.register_buffer("relative_position_index", relative_positions(grid))
        self.qkv = nn.Linear(width, inner * 3)
        self.proj = nn.Linear(inner, width)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """`mask` (windows, n, n) is added to the logits of each window; B is then images * windows."""
        batch, tokens, _ = x.shape
        inner = self.proj.in_features
        q, k, v = (
            self.qkv(x).reshape(batch, tokens, 3, self.heads, inner // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        )
        # scaled after the product, so that quantizers of q and k see them as Q-SCI's do
        attention = (q @ k.transpose(-2, -1)) * self.scale
        index = self.relative_position_index[:tokens, :tokens].reshape(-1)
        bias = self.relative_position_bias_table[index].reshape(tokens, tokens, self.heads)
        attention = attention + bias.permute(2, 0, 1).unsqueeze(0)
        if mask is not None:
            windows = mask.shape[0]
            attention = attention.reshape(batch // windows, windows, self.heads, tokens, tokens)
            attention = (attention + mask.unsqueeze(1)).reshape(batch, self.heads, tokens, tokens)
        attention = attention.softmax(dim=-1)
        return self.proj((attention @ v).transpose(1, 2).reshape(batch, tokens, inner))


class SpaceAttention(Attention):
    """Within a window of one frame."""

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__(width, width, heads, (window, window))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)


class TimeAttention(Attention):
    """Between the frames at one place, in half the channels."""

    def __init__(self, width: int, heads: int, frames: int) -> None:
        super().__init__(width, width // 2, heads, (frames,))


class GroupedFeedForward(nn.Module):
    """Two residual convolution pairs, each on half the channels, the second fed with the first's output too."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.part1 = self._pair(width)
        self.part2 = self._pair(width)

    @staticmethod
    def _pair(width: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv3d(width, width, 3, padding=1), nn.LeakyReLU(), nn.Conv3d(width, width, 3, padding=1)
        )

    def forward(self, x: Tensor) -> Tensor:
        first, second = x.chunk(2, dim=1)
        first = first + self.part1(first)
        second = second + first
        second = second + self.part2(second)
        return torch.cat([first, second], dim=1)


class STFormerBlock(nn.Module):
    """(N,T,H,W,C): windowed attention in space and attention in time side by side, then the feed-forward."""

    def __init__(self, width: int, heads: int, window: int, shift: int, frames: int) -> None:
        super().__init__()
        self.window = window
        self.shift = shift
        self.norm1 = nn.LayerNorm(width)
        self.attn = SpaceAttention(width, heads, window)
        self.time_attn = TimeAttention(width, heads, frames)
        self.norm2 = nn.LayerNorm(width)
        self.ff = GroupedFeedForward(width // 2)

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm1(x)
        x = x + (self._in_time(normed) + self._in_space(normed))
        return x + self.ff(self.norm2(x).permute(0, 4, 1, 2, 3)).permute(0, 2, 3, 4, 1)

    def _in_time(self, x: Tensor) -> Tensor:
        batch, frames, height, breadth, width = x.shape
        places = x.permute(0, 2, 3, 1, 4).reshape(batch * height * breadth, frames, width)
        return self.time_attn(places).reshape(batch, height, breadth, frames, width).permute(0, 3, 1, 2, 4)

    def _in_space(self, x: Tensor) -> Tensor:
        batch, frames, height, breadth, width = x.shape
        images = x.reshape(batch * frames, height, breadth, width)
        # an image smaller than a window is one window, and has nowhere to shift to
        window = (min(self.window, height), min(self.window, breadth))
        shift = (self.shift if height > self.window else 0, self.shift if breadth > self.window else 0)
        images = F.pad(images, (0, 0, 0, -breadth % window[1], 0, -height % window[0]))
        padded = (images.shape[1], images.shape[2])
        mask = None
        if shift != (0, 0):
            images = images.roll((-shift[0], -shift[1]), (1, 2))
            mask = torch.from_numpy(shift_mask(int(padded[0]), int(padded[1]), window, shift)).to(x)
        images = merge_windows(self.attn(part_windows(images, window), mask), window, padded)
        if shift != (0, 0):
            images = images.roll(shift, (1, 2))
        return images[:, :height, :breadth].reshape(batch, frames, height, breadth, width)


class STFormerLayer(nn.Module):
    """Blocks by turns with and without shifted windows. (N,C,T,H,W)."""

    def __init__(self, width: int, depth: int, heads: int, window: int, frames: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            STFormerBlock(width, heads, window, window // 2 if index % 2 else 0, frames) for index in range(depth)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 4, 1)
        for block in self.blocks:
            x = block(x)
        return x.permute(0, 4, 1, 2, 3)


class STFormer(nn.Module):
    """Reconstructs T <= `frames` frames from one coded snapshot.

    measurement (N,H,W), mask (N,T,H,W), mask_sum (N,H,W) without zeros; H and W even; frames in 0..1, the measurement
    being their masked sum. Returns (N,T,H,W), or (N,3,T,H,W) with `color_ch=3`, whose measurement is a Bayer mosaic.
    Not clamped.
    """

    def __init__(
        self,
        *,
        dim: int = 64,
        units: int = 4,
        color_ch: int = 1,
        frames: int = 8,
        depth: int = 2,
        heads: int = 4,
        window: int = 7,
    ) -> None:
        super().__init__()
        self.frames = frames
        self.token_gen = nn.Sequential(
            nn.Conv3d(1, dim, 5, padding=2),
            nn.LeakyReLU(),
            nn.Conv3d(dim, dim * 2, 1),
            nn.LeakyReLU(),
            nn.Conv3d(dim * 2, dim * 2, 3, padding=1),
            nn.LeakyReLU(),
            nn.Conv3d(dim * 2, dim * 4, 3, stride=(1, 2, 2), padding=1),
            nn.LeakyReLU(),
            nn.Conv3d(dim * 4, dim * 4, 1),
            nn.LeakyReLU(),
        )
        self.layers = nn.ModuleList(STFormerLayer(dim * 4, depth, heads, window, frames) for _ in range(units))
        self.conv2 = nn.Sequential(
            nn.ConvTranspose3d(dim * 4, dim * 2, (1, 3, 3), (1, 2, 2), (0, 1, 1), (0, 1, 1)),
            nn.LeakyReLU(),
            nn.Conv3d(dim * 2, dim * 2, 3, padding=1),
            nn.LeakyReLU(),
            nn.Conv3d(dim * 2, dim, 1),
            nn.LeakyReLU(),
            nn.Conv3d(dim, color_ch, 3, padding=1),
        )

    def forward(self, measurement: Tensor, mask: Tensor, mask_sum: Tensor) -> Tensor:
        if mask.shape[1] > self.frames:
            raise ValueError(
                f"this STFormer reconstructs at most {self.frames} frames, and the mask has {mask.shape[1]}"
            )
        x = self.token_gen(projected(measurement, mask, mask_sum))
        for layer in self.layers:
            x = layer(x)
        return self.conv2(x).squeeze(1)


class STFormerStock(Stock):
    """Every size, also window, heads and frames, is in the shapes of its tensors."""

    name = "stformer"
    network = STFormer
    task = "sci"
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "stformer_s": {"dim": 16, "units": 4},
        "stformer_b": {"dim": 64, "units": 4},
    }

    def detect(self, state: StateDict) -> bool:
        block = "layers.0.blocks.0"
        names = ("token_gen.0.weight", "conv2.6.weight", f"{block}.time_attn.qkv.weight", f"{block}.ff.part1.0.weight")
        return all(name in state for name in names)

    def read(self, state: StateDict, scale: int | None = None) -> dict[str, Any]:
        table = "relative_position_bias_table"
        space, time = (state[f"layers.0.blocks.0.{name}.{table}"] for name in ("attn", "time_attn"))
        return {
            "dim": state["token_gen.0.weight"].shape[0],
            "units": count_children(state, "layers"),
            "color_ch": state["conv2.6.weight"].shape[0],
            "frames": (time.shape[0] + 1) // 2,
            "depth": count_children(state, "layers.0.blocks"),
            "heads": space.shape[1],
            "window": (math.isqrt(space.shape[0]) + 1) // 2,
        }

    def describe(self, module: nn.Module, settings: dict[str, Any]) -> Network:
        return Network(
            module=module,
            architecture=self.name,
            scale=1,
            value_range=1.0,
            channels=settings["color_ch"],
            blocks=[f"layers.{index}" for index in range(settings["units"])],
            task="sci",
            settings=settings,
            size_multiple=2,
        )

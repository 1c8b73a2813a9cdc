"""CARN and CARN-M (Ahn et al., ECCV 2018, arXiv 1803.08664) under their published parameter names."""

from __future__ import annotations

import math
import re
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from qsci_plugins.architectures.network import Network
from qsci_plugins.architectures.sr.edsr import MeanShift, upsampling_factors
from qsci_plugins.architectures.stock import StateDict, Stock, pixel_shuffle_radius
from qsci_plugins.errors import UserError

__all__ = ["CARN", "CARNStock", "CascadingBlock", "ResidualUnit"]


class Shift(nn.Module):
    """The mean shift under the name that this code gives it."""

    def __init__(self, value_range: float, sign: int) -> None:
        super().__init__()
        self.shifter = MeanShift(value_range, sign)

    def forward(self, x: Tensor) -> Tensor:
        return self.shifter(x)


class Fusion(nn.Module):
    """relu(conv1x1) of everything so far."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(channels, width, 1), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class ResidualUnit(nn.Module):
    """relu(x + two convolutions of x); the efficient form has them in groups, mixed by a third of 1x1."""

    def __init__(self, width: int, groups: int, efficient: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = [
            nn.Conv2d(width, width, 3, padding=1, groups=groups),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, groups=groups),
        ]
        if efficient:
            layers += [nn.ReLU(), nn.Conv2d(width, width, 1)]
        self.body = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.body(x))


def cascade(x: Tensor, stages: list[nn.Module], fusions: list[nn.Module]) -> Tensor:
    """Each stage's output joins all that came before; a fusion of that feeds the next stage."""
    gathered = x
    for stage, fusion in zip(stages, fusions, strict=True):
        gathered = torch.cat([gathered, stage(x)], dim=1)
        x = fusion(gathered)
    return x


class CascadingBlock(nn.Module):
    """A cascade of three residual units, or of one unit three times."""

    def __init__(self, width: int, groups: int, efficient: bool, recursive: bool) -> None:
        super().__init__()
        self.b1 = ResidualUnit(width, groups, efficient)
        if not recursive:
            self.b2 = ResidualUnit(width, groups, efficient)
            self.b3 = ResidualUnit(width, groups, efficient)
        self.recursive = recursive
        self.c1 = Fusion(width * 2, width)
        self.c2 = Fusion(width * 3, width)
        self.c3 = Fusion(width * 4, width)

    def forward(self, x: Tensor) -> Tensor:
        units = [self.b1, self.b1, self.b1] if self.recursive else [self.b1, self.b2, self.b3]
        return cascade(x, units, [self.c1, self.c2, self.c3])


class PixelShuffles(nn.Module):
    """Convolution, ReLU and pixel shuffle for every factor of the scale."""

    def __init__(self, width: int, scale: int, groups: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for factor in upsampling_factors(scale):
            convolution = nn.Conv2d(width, width * factor**2, 3, padding=1, groups=groups)
            layers += [convolution, nn.ReLU(), nn.PixelShuffle(factor)]
        self.body = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class CARN(nn.Module):
    """Maps RGB (N,3,H,W) in 0..`value_range` to (N,3,scale*H,scale*W) in the same range, not clamped.

    The published network holds upsamplers for x2, x3 and x4, and takes the scale with every call; this one holds the
    upsampler of its own `scale`, under the same name (`upsample.up4`; `upsample.up` with `multi_scale=False`).
    CARN-M is `recursive`, `efficient` and has 4 `groups`.
    """

    def __init__(
        self,
        *,
        width: int = 64,
        scale: int = 4,
        groups: int = 1,
        efficient: bool = False,
        recursive: bool = False,
        multi_scale: bool = True,
        value_range: float = 1.0,
    ) -> None:
        super().__init__()
        self.scale = scale
        self.value_range = value_range
        self.sub_mean = Shift(value_range, -1)
        self.add_mean = Shift(value_range, +1)
        self.entry = nn.Conv2d(3, width, 3, padding=1)
        self.b1 = CascadingBlock(width, groups, efficient, recursive)
        self.b2 = CascadingBlock(width, groups, efficient, recursive)
        self.b3 = CascadingBlock(width, groups, efficient, recursive)
        self.c1 = Fusion(width * 2, width)
        self.c2 = Fusion(width * 3, width)
        self.c3 = Fusion(width * 4, width)
        name = f"up{scale}" if multi_scale else "up"
        self.upsample = nn.ModuleDict({name: PixelShuffles(width, scale, groups)})
        self.exit = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.entry(self.sub_mean(x))
        x = cascade(x, [self.b1, self.b2, self.b3], [self.c1, self.c2, self.c3])
        for upsampler in self.upsample.values():
            x = upsampler(x)
        return self.add_mean(self.exit(x))


class CARNStock(Stock):
    """CARN and CARN-M, with one upsampler or several: then the scale must be given, or is the largest."""

    name = "carn"
    network = CARN
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "carn_m": {"groups": 4, "efficient": True, "recursive": True},
    }

    def detect(self, state: StateDict) -> bool:
        names = ("entry.weight", "b1.b1.body.0.weight", "b1.c3.body.0.weight", "c3.body.0.weight", "exit.weight")
        return all(name in state for name in names) and any(name.startswith("upsample.up") for name in state)

    def read(self, state: StateDict, scale: int | None = None) -> dict[str, Any]:
        width = state["entry.weight"].shape[0]
        scales = sorted({int(found[1]) for name in state if (found := re.match(r"upsample\.up(\d)\.", name))})
        if not scales:
            convolutions = [name for name in state if re.fullmatch(r"upsample\.up\.body\.\d+\.weight", name)]
            own = math.isqrt(math.prod(state[name].shape[0] // width for name in convolutions))
        elif scale is None or scale in scales:
            own = scales[-1] if scale is None else scale
        else:
            raise UserError(
                f"this CARN upscales by {', '.join(map(str, scales))}, but model.scale is {scale}; give one of those"
            )
        shift = state["sub_mean.shifter.bias"].abs().max().item()
        return {
            "width": width,
            "scale": own,
            "groups": width // state["b1.b1.body.0.weight"].shape[1],
            "efficient": "b1.b1.body.4.weight" in state,
            "recursive": "b1.b2.body.0.weight" not in state,
            "multi_scale": bool(scales),
            **({"value_range": 255.0 if shift > 2 else 1.0} if shift > 0 else {}),
        }

    def needed(self, state: StateDict, settings: dict[str, Any]) -> dict[str, Tensor]:
        own = f"upsample.up{settings['scale']}." if settings["multi_scale"] else "upsample.up."
        return {
            name: tensor for name, tensor in state.items() if not name.startswith("upsample.") or name.startswith(own)
        }

    def describe(self, module: nn.Module, settings: dict[str, Any]) -> Network:
        # entry, and three blocks of three units of two 3x3 convolutions
        reach = 1 + 3 * 3 * 2 + pixel_shuffle_radius(upsampling_factors(settings["scale"]))
        return Network(
            module=module,
            architecture=self.name,
            scale=settings["scale"],
            value_range=settings["value_range"],
            blocks=["b1", "b2", "b3"],
            settings=settings,
            receptive_radius=math.ceil(reach),
        )

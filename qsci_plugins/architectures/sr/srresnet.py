"""SRResNet (Ledig et al., CVPR 2017, arXiv 1609.04802) under the parameter names of CADyQ's code."""

from __future__ import annotations

import math
import re
from typing import Any

from torch import Tensor, nn

from qsci_plugins.architectures.network import Network
from qsci_plugins.architectures.sr.edsr import upsampling_factors
from qsci_plugins.architectures.stock import StateDict, Stock, count_children, pixel_shuffle_radius

__all__ = ["SRResNet", "SRResNetBlock", "SRResNetStock"]


class SRResNetBlock(nn.Module):
    """x + bn(conv(prelu(bn(conv(x)))))."""

    def __init__(self, width: int, activation: nn.PReLU) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.act = activation
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.bn2(self.conv2(self.act(self.bn1(self.conv1(x)))))


class SRResNet(nn.Module):
    """Maps RGB (N,3,H,W) in 0..`value_range` to (N,3,scale*H,scale*W) in the same range, not clamped.

    The defaults are the published code: no biases outside the normalisations, a mean shift, and one PReLU with one
    slope that the whole network shares. `channel_slopes` gives every PReLU a slope for each channel, `bias` gives
    head, upsampler and tail biases, and `signed_output` means that -1..1 of the tail stands for 0..`value_range`.
    """

    def __init__(
        self,
        *,
        blocks: int = 16,
        width: int = 64,
        scale: int = 4,
        value_range: float = 255.0,
        shared_slope: bool = True,
        channel_slopes: bool = False,
        bias: bool = False,
        signed_output: bool = False,
    ) -> None:
        super().__init__()
        self.scale = scale
        self.value_range = value_range
        self.signed_output = signed_output
        slopes = width if channel_slopes else 1
        shared = nn.PReLU(slopes)

        def activation() -> nn.PReLU:
            return shared if shared_slope else nn.PReLU(slopes)

        self.head = nn.Sequential(nn.Conv2d(3, width, 9, padding=4, bias=bias), activation())
        self.body = nn.Sequential(
            *(SRResNetBlock(width, activation()) for _ in range(blocks)),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )
        upsampler: list[nn.Module] = []
        for factor in upsampling_factors(scale):
            convolution = nn.Conv2d(width, width * factor**2, 3, padding=1, bias=bias)
            upsampler += [convolution, nn.PixelShuffle(factor), activation()]
        self.tail = nn.Sequential(nn.Sequential(*upsampler), nn.Conv2d(width, 3, 9, padding=4, bias=bias))

    def forward(self, x: Tensor) -> Tensor:
        x = self.head(x)
        x = self.tail(x + self.body(x))
        return (x + 1) * (self.value_range / 2) if self.signed_output else x


class SRResNetStock(Stock):
    """The published names, and the flat ones (`head_act`, `body_conv`, `up1`, ...) of converted networks."""

    name = "srresnet"
    network = SRResNet

    def detect(self, state: StateDict) -> bool:
        names = [f"body.0.{part}.weight" for part in ("conv1", "bn1", "act", "conv2", "bn2")]
        flat = "head_act.weight" in state
        names += ["head.weight", "body_conv.weight", "tail.weight"] if flat else ["head.1.weight", "tail.1.weight"]
        return all(name in state for name in names)

    def canonical(self, state: StateDict) -> dict[str, Tensor]:
        if "head_act.weight" not in state:
            return dict(state)
        blocks = count_children(state, "body")
        places = {"head": "head.0", "head_act": "head.1", "tail": "tail.1"}
        places |= {"body_conv": f"body.{blocks}", "body_bn": f"body.{blocks + 1}"}
        for index in range(sum(name.startswith("up") and name.endswith(".weight") for name in state)):
            places |= {f"up{index + 1}": f"tail.0.{3 * index}", f"act{index + 1}": f"tail.0.{3 * index + 2}"}
        renamed = {}
        for name, tensor in state.items():
            layer, _, rest = name.partition(".")
            renamed[f"{places.get(layer, layer)}.{rest}"] = tensor
        return renamed

    def read(self, state: StateDict, scale: int | None = None) -> dict[str, Any]:
        width = state["head.0.weight"].shape[0]
        upsampler = [tensor for name, tensor in state.items() if re.fullmatch(r"tail\.0\.\d+\.weight", name)]
        slopes = [tensor for name, tensor in state.items() if re.search(r"(^head\.1|\.act)\.weight$", name)]
        slopes += [tensor for tensor in upsampler if tensor.dim() == 1]
        return {
            "blocks": count_children(state, "body") - 2,
            "width": width,
            "scale": math.isqrt(math.prod(tensor.shape[0] // width for tensor in upsampler if tensor.dim() == 4)),
            "channel_slopes": slopes[0].numel() > 1,
            "shared_slope": all(
                tensor.shape == slopes[0].shape and bool((tensor == slopes[0]).all()) for tensor in slopes
            ),
            "bias": "head.0.bias" in state,
        }

    def needed(self, state: StateDict, settings: dict[str, Any]) -> dict[str, Tensor]:
        # the published network carries a mean shift that its forward never calls
        return {name: tensor for name, tensor in state.items() if not name.startswith(("sub_mean.", "add_mean."))}

    def published(self, determined: dict[str, Any]) -> dict[str, Any]:
        # the converted networks with biases take 0..1 and return -1..1
        return {"value_range": 1.0, "signed_output": True} if determined["bias"] else {}

    def describe(self, module: nn.Module, settings: dict[str, Any]) -> Network:
        blocks = settings["blocks"]
        reach = 4 + 2 * blocks + 1 + pixel_shuffle_radius(upsampling_factors(settings["scale"]), last=4)
        return Network(
            module=module,
            architecture=self.name,
            scale=settings["scale"],
            value_range=settings["value_range"],
            blocks=[f"body.{index}" for index in range(blocks)],
            settings=settings,
            receptive_radius=math.ceil(reach),
        )

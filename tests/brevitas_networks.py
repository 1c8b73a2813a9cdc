"""Small networks and inputs for the tests of the Brevitas backend."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from qsci_plugins.architectures.sci.efficientsci import EfficientSCI
from qsci_plugins.architectures.sr.edsr import EDSR
from qsci_plugins.schemes.placement import Placement

__all__ = ["CASES", "EVERYTHING", "images", "inputs_for", "measurement", "placement_for", "settings_for", "stock"]

EVERYTHING = Placement(targets=("body.*",), eight_bit=("head.*", "tail.*"))
#: (network, scheme, form)
CASES = [
    ("edsr", "adabm", "integer"),
    ("edsr", "adabm", "faithful"),
    ("edsr", "cadyq", "integer"),
    ("edsr", "cadyq", "faithful"),
    ("edsr", "qsci", "integer"),
    ("sci", "adabm", "integer"),
    ("sci", "qsci", "integer"),
    ("sci", "qsci", "faithful"),
]


def images(count: int = 4, side: int = 12, seed: int = 0) -> Tensor:
    """In 0..255, from flat to rough, so that their bits differ."""
    noise = torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed)) * 200
    return noise * torch.linspace(0.05, 1, count)[:, None, None, None] + 20


def measurement(seed: int = 0, side: int = 8, frames: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    """Measurement, mask and mask sum of a snapshot."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(1, frames, side, side, generator=generator) + 0.1
    video = torch.rand(1, frames, side, side, generator=generator)
    return (video * mask).sum(1), mask, mask.sum(1)


def stock(network: str, seed: int = 0) -> nn.Module:
    """A small float network with random weights."""
    torch.manual_seed(seed)
    return EDSR(blocks=2, width=6, scale=2).eval() if network == "edsr" else EfficientSCI(in_ch=8, units=1).eval()


def inputs_for(network: str, seed: int = 0) -> Any:
    return images(seed=seed) if network == "edsr" else measurement(seed)


def placement_for(network: str, scheme: str) -> Placement:
    if network == "sci":
        return Placement(targets=("resdnet_list.*",), eight_bit=("fem.*",))
    return Placement(targets=("body.*.body.*",)) if scheme == "cadyq" else EVERYTHING


def settings_for(network: str, scheme: str, form: str) -> dict[str, Any]:
    settings: dict[str, Any] = {"name": scheme, "form": form}
    if scheme == "qsci" and network == "edsr":
        settings["attention"] = []
    return settings

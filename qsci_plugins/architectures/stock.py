"""What a stock network's file says about itself: how to recognise, read, build and describe it."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from qsci_plugins.architectures.network import Network, Task

__all__ = ["StateDict", "Stock", "count_children", "pixel_shuffle_radius"]

StateDict = Mapping[str, Tensor]


class Stock(ABC):
    """One family of networks.

    Adding one is a file with its `nn.Module` and a subclass of this, listed in `registry.py`.
    """

    name: ClassVar[str]
    #: the class that `build` makes; its keyword arguments are the settings
    network: ClassVar[type[nn.Module]]
    task: ClassVar[Task] = "sr"
    #: whether tensors alone determine the scale of an upscaler
    tells_scale: ClassVar[bool] = True
    #: published sizes by name, as settings
    presets: ClassVar[dict[str, dict[str, Any]]] = {}

    @abstractmethod
    def detect(self, state: StateDict) -> bool:
        """Whether these are this network's tensors.

        Narrow: spandrel takes the first architecture that says yes.
        """

    def canonical(self, state: StateDict) -> dict[str, Tensor]:
        """The tensors under the names that `network` gives them."""
        return dict(state)

    @abstractmethod
    def read(self, state: StateDict, scale: int | None = None) -> dict[str, Any]:
        """The settings that canonical tensors determine; those that they leave open are absent.

        `scale` chooses where one checkpoint holds several. Raises UserError where it is needed, or is not
        there.
        """

    def published(self, told: dict[str, Any]) -> dict[str, Any]:
        """What the published network with these tensors does besides; a setting of the user's goes first."""
        return {}

    def needed(self, state: StateDict, settings: dict[str, Any]) -> dict[str, Tensor]:
        """The canonical tensors without those that only another scale of the same checkpoint uses."""
        return dict(state)

    @abstractmethod
    def describe(self, module: nn.Module, settings: dict[str, Any]) -> Network:
        """What `Network` says of a module built with these (complete) settings."""

    def build(self, settings: dict[str, Any]) -> nn.Module:
        """The network with random weights. Raises ValueError for sizes that it cannot have."""
        return self.network(**settings)

    def defaults(self) -> dict[str, Any]:
        """Every setting with the value that it has where nobody says otherwise."""
        return {one.name: one.default for one in inspect.signature(self.network).parameters.values()}


def count_children(state: StateDict, prefix: str) -> int:
    """How many different `prefix.<number>` the names hold."""
    heads = (name[len(prefix) + 1 :].split(".", 1)[0] for name in state if name.startswith(f"{prefix}."))
    return len({head for head in heads if head.isdigit()})


def pixel_shuffle_radius(factors: list[int], last: int = 1) -> float:
    """How many input pixels away a chain of 3x3 convolutions with pixel shuffles, closed by one of radius
    `last`, looks.
    """
    radius, resolution = 0.0, 1
    for factor in factors:
        radius += 1 / resolution
        resolution *= factor
    return radius + last / resolution

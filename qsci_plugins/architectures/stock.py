"""A family of stock networks: what its file says of itself, and how a network of it is built and its tensors are loaded."""

from __future__ import annotations

import difflib
import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from qsci_plugins.architectures.network import Network, Task
from qsci_plugins.errors import UserError

__all__ = [
    "StateDict",
    "Stock",
    "build",
    "check_settings",
    "count_children",
    "from_tensors",
    "load_tensors",
    "nearest",
    "pixel_shuffle_radius",
    "tensor_differences",
]

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

    def published(self, determined: dict[str, Any]) -> dict[str, Any]:
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
        return {parameter.name: parameter.default for parameter in inspect.signature(self.network).parameters.values()}


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


def from_tensors(
    stock: Stock, state: StateDict, weights: str, scale: int | None = None, settings: Mapping[str, Any] | None = None
) -> Network:
    """The network of a recognised state dict, in eval mode. `weights` names its origin in errors.

    Raises UserError where tensors are missing, left over or of wrong shapes, and where `scale` or `settings`
    contradict what the tensors tell.
    """
    settings = settings or {}
    state = stock.canonical(state)
    try:
        determined = stock.read(state, scale)
    except (KeyError, IndexError, ValueError, ZeroDivisionError) as error:
        differences = tensor_differences(state, stock.network().state_dict())
        raise UserError(f"{weights} looks like {stock.name}, but not all of it is there: {differences}") from error
    if stock.task == "sr" and scale is not None and determined["scale"] != scale:
        raise UserError(
            f"{weights} holds {stock.name} for x{determined['scale']}, but model.scale is {scale}; make them agree"
        )
    for name, value in settings.items():
        if name in determined and determined[name] != value:
            raise UserError(
                f"{weights}: the tensors say {name} {determined[name]}, not {value} as the recipe; make them agree"
            )
    chosen = {**stock.defaults(), **stock.published(determined), **settings, **determined}
    module = build(stock, chosen)
    load_tensors(module, stock.needed(state, chosen), weights, stock.name)
    return stock.describe(module.eval(), chosen)


def build(stock: Stock, settings: dict[str, Any]) -> nn.Module:
    """`stock.build` with random weights; UserError for sizes that the network cannot have."""
    try:
        return stock.build(settings)
    except (TypeError, ValueError, RuntimeError, ZeroDivisionError) as error:
        raise UserError(f"{stock.name} cannot be built with {settings}: {error}") from error


def check_settings(stock: Stock, settings: Mapping[str, Any]) -> None:
    """Raises UserError for a setting that the network does not have, with the nearest that it has."""
    known = [name for name in stock.defaults() if name != "scale"]
    for name in settings:
        if name not in known:
            raise UserError(f"{stock.name} has no setting {name!r}; {nearest(name, known)}")


def load_tensors(module: nn.Module, state: Mapping[str, Tensor], weights: str, architecture: str) -> None:
    """Strict loading.

    Raises UserError that lists the first tensors that are missing, left over or of another shape.
    """
    expected = module.state_dict()
    # checkpoints older than PyTorch 0.4.1 do not count batches, and nothing here reads the counts
    state = {**{name: tensor for name, tensor in expected.items() if name.endswith("num_batches_tracked")}, **state}
    differences = tensor_differences(state, expected)
    if differences:
        raise UserError(f"{weights} does not fit {architecture}: {differences}")
    module.load_state_dict(dict(state))


def tensor_differences(given: Mapping[str, Tensor], expected: Mapping[str, Tensor], count: int = 3) -> str:
    """The first differing names and shapes in words; empty where there are none."""
    missing = [name for name in expected if name not in given]
    extra = [name for name in given if name not in expected]
    shapes = [
        f"{name} is {tuple(given[name].shape)} instead of {tuple(expected[name].shape)}"
        for name in expected
        if name in given and given[name].shape != expected[name].shape
    ]
    parts = [
        _list("missing", missing, count),
        _list("not expected", extra, count),
        _list("other shapes:", shapes, count),
    ]
    return "; ".join(part for part in parts if part)


def _list(title: str, names: list[str], count: int) -> str:
    if not names:
        return ""
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return f"{title} {', '.join(names[:count])}{more}"


def nearest(name: str, known: list[str]) -> str:
    """ "nearest: ..." of the known names, or all of them where none is near."""
    by_lowered = {name.lower(): name for name in known}
    near = difflib.get_close_matches(name.lower(), by_lowered, n=3, cutoff=0.5)
    return f"nearest: {', '.join(by_lowered[name] for name in near)}" if near else f"known: {', '.join(known)}"

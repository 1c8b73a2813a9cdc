"""Loads a network by name, by its tensors, or from the user's own code, for recipes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from qsci_plugins.architectures.checkpoint import open_checkpoint
from qsci_plugins.architectures.factory import PYTHON, load_factory
from qsci_plugins.architectures.network import Network
from qsci_plugins.architectures.sci.efficientsci import EfficientSCIStock
from qsci_plugins.architectures.sci.stformer import STFormerStock
from qsci_plugins.architectures.sr.carn import CARNStock
from qsci_plugins.architectures.sr.edsr import EDSRStock
from qsci_plugins.architectures.sr.idn import IDNStock
from qsci_plugins.architectures.sr.rdn import RDNStock
from qsci_plugins.architectures.sr.srresnet import SRResNetStock
from qsci_plugins.architectures.stock import (
    StateDict,
    Stock,
    build,
    check_settings,
    from_tensors,
    nearest,
    tensor_differences,
)
from qsci_plugins.errors import UserError

__all__ = ["STOCK", "architecture_names", "load_network", "recognise"]

#: in the order in which they are tried
STOCK: tuple[Stock, ...] = (
    EDSRStock(),
    RDNStock(),
    SRResNetStock(),
    CARNStock(),
    IDNStock(),
    EfficientSCIStock(),
    STFormerStock(),
)

# Importing this module makes spandrel's ModelLoader know our networks. Float training runs without it.
try:
    from qsci_plugins.architectures import spandrel_bridge
except ImportError:
    spandrel_bridge = None  # type: ignore[assignment]
else:
    spandrel_bridge.register(STOCK)


def architecture_names() -> list[str]:
    """Every name that `load_network` takes: ours with their published sizes, then spandrel's."""
    names = [name for stock in STOCK for name in (stock.name, *stock.presets)]
    return names + (spandrel_bridge.foreign_names(STOCK) if spandrel_bridge else [])


def recognise(state: StateDict) -> str | None:
    """The architecture of these tensors, ours first and then spandrel's; None where nobody knows them."""
    for stock in STOCK:
        if stock.detect(state):
            return stock.name
    return spandrel_bridge.recognise_foreign(state) if spandrel_bridge else None


def load_network(
    architecture: str | None,
    weights: str | Path | None,
    scale: int | None = None,
    seed: int = 0,
    **settings: Any,
) -> Network:
    """A float network in eval mode on the CPU.

    `architecture` is one of `architecture_names()`, `python:package.module:Factory` (a callable that
    returns an nn.Module), or None: then the tensors of `weights` tell. `weights` is a path, `builtin:NAME`, or None:
    then they are random by `seed`. `settings` are hyper-parameters; those that the tensors determine need not be
    given, and must agree with the tensors if they are.
    Raises UserError for what the user can put right: unknown names, weights of another network, a wrong scale.

    >>> import torch
    >>> import qsci_plugins
    >>> network = qsci_plugins.load_network("edsr", None, 2, blocks=2, width=8)
    >>> tuple(network.module(torch.zeros(1, 3, 8, 10)).shape)
    (1, 3, 16, 20)
    """
    if architecture is not None and architecture.startswith(PYTHON):
        return load_factory(architecture, weights, scale, seed, settings)
    if weights is None:
        if architecture is None:
            raise UserError("model.architecture and model.weights are both missing; give at least one of them")
        return _random(architecture, scale, seed, settings)
    named, preset = _find(architecture) if architecture is not None else (None, {})
    checkpoint = open_checkpoint(weights, lambda state: recognise(state) is not None)
    state = checkpoint.tensors
    found = recognise(state)
    wanted = named.name if named is not None else architecture
    if found is None or (wanted is not None and wanted.lower() != found.lower()):
        raise _another_network(str(weights), state, found, named, architecture)
    stock = next((each for each in STOCK if each.name == found), None)
    if stock is None:
        network = spandrel_bridge.load_foreign(state, scale, str(weights), settings)
        return replace(network, origin=checkpoint.origin)
    if scale is None and not stock.tells_scale:
        raise UserError(f"{weights}: the tensors of {stock.name} do not tell its scale; give model.scale")
    check_settings(stock, settings)
    _check_video_scale(stock, scale)
    network = from_tensors(stock, state, str(weights), scale, {**preset, **settings})
    return replace(network, origin=checkpoint.origin)


def _find(architecture: str) -> tuple[Stock | None, dict[str, Any]]:
    """The stock network of a name with its preset; (None, {}) for a name of spandrel's."""
    lowered = architecture.lower()
    for stock in STOCK:
        if lowered == stock.name:
            return stock, {}
        if lowered in stock.presets:
            return stock, stock.presets[lowered]
    names = architecture_names()
    if lowered in (name.lower() for name in names):
        return None, {}
    raise UserError(
        f"unknown architecture {architecture!r}; {nearest(architecture, names)}; "
        "a network of your own is python:package.module:Factory"
    )


def _random(architecture: str, scale: int | None, seed: int, settings: dict[str, Any]) -> Network:
    stock, preset = _find(architecture)
    if stock is None:
        raise UserError(f"{architecture} is spandrel's, which builds networks from weights alone; give model.weights")
    check_settings(stock, settings)
    chosen = {**stock.defaults(), **preset, **settings}
    if stock.task == "sr" and scale is not None:
        chosen["scale"] = scale
    _check_video_scale(stock, scale)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = build(stock, chosen)
    return stock.describe(module.eval(), chosen)


def _check_video_scale(stock: Stock, scale: int | None) -> None:
    if stock.task == "sci" and scale not in (None, 1):
        raise UserError(f"{stock.name} reconstructs at the size of its measurement: model.scale is 1, not {scale}")


def _another_network(
    weights: str, state: dict[str, Tensor], found: str | None, named: Stock | None, architecture: str | None
) -> UserError:
    differences = ""
    if named is not None:
        differences = ": " + tensor_differences(named.canonical(state), named.network().state_dict())
    if found is not None:
        return UserError(
            f"{weights} holds {found}, not the {architecture} that model.architecture names{differences}. "
            f"Use architecture: {found}, or other weights"
        )
    if architecture is not None:
        return UserError(f"{weights} holds neither {architecture} nor any other known network{differences}")
    first = ", ".join(list(state)[:4])
    return UserError(
        f"{weights} is of no known architecture (its tensors: {first}, ...); for a network of your own give "
        "architecture: python:package.module:Factory"
    )

"""Quantizers as JSON and back, so that a saved network needs no pickle."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from torch import Tensor, nn

from qsci_plugins.errors import UserError

__all__ = ["describe", "rebuild"]


def describe(module: nn.Module) -> dict[str, Any]:
    """What rebuilds a module but for its tensors: {"class": "package.module:Name", "settings": {...}}, plain JSON.

    Settings are the constructor's arguments, read from the attributes of the same names (as scikit-learn does it); a
    module among them is described in turn. A class whose constructor takes something else, such as a weight, answers
    `get_settings() -> dict` and takes the same again in a classmethod `from_settings(**settings)`.
    """
    kind = type(module)
    if hasattr(module, "get_settings"):
        settings = module.get_settings()  # type: ignore[operator]
    else:
        settings = {name: getattr(module, name) for name in inspect.signature(kind).parameters}
    return {
        "class": f"{kind.__module__}:{kind.__qualname__}",
        "settings": {name: _to_json(value, f"{kind.__name__}.{name}") for name, value in settings.items()},
    }


def rebuild(description: Mapping[str, Any]) -> nn.Module:
    """The module of a description, its tensors at their first values (a state dict has the real ones).

    Only classes of this package and of packages that registered a scheme are imported; UserError for any other.
    """
    kind = _trusted_class(str(description["class"]))
    settings = {name: _from_json(value) for name, value in description["settings"].items()}
    module = kind.from_settings(**settings) if hasattr(kind, "from_settings") else kind(**settings)
    assert isinstance(module, nn.Module)
    return module


def _trusted_class(path: str) -> Any:
    module_name, _, name = path.partition(":")
    registered = {point.value.split(".")[0].split(":")[0] for point in entry_points(group="qsci_plugins.schemes")}
    trusted = {"qsci_plugins", *registered}
    if module_name.split(".")[0] not in trusted:
        raise UserError(
            f"the saved network asks for {path!r}, which is of no package that registered a scheme"
            f" ({', '.join(sorted(trusted))}); install the package it was made with"
        )
    try:
        kind = getattr(import_module(module_name), name)
    except (ImportError, AttributeError) as error:
        raise UserError(
            f"the saved network asks for {path!r}, which this installation does not have: {error}"
        ) from error
    if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
        raise UserError(f"the saved network asks for {path!r}, which is not a torch module")
    return kind


def _to_json(value: Any, where: str) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Tensor) and value.numel() == 1:
        return value.item()
    if isinstance(value, nn.Module) and not isinstance(value, nn.ModuleList):
        return describe(value)
    if isinstance(value, list | tuple | nn.ModuleList):
        return [_to_json(entry, where) for entry in value]
    raise TypeError(f"{where} is a {type(value).__name__}, which JSON cannot hold; give its class get_settings()")


def _from_json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return rebuild(value)
    if isinstance(value, list):
        return tuple(_from_json(entry) for entry in value)
    return value

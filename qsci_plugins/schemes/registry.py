"""Schemes by name, and quantizers as JSON and back: a saved network needs no pickle, and trusts registered packages alone."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from pydantic import ValidationError
from torch import Tensor, nn

from qsci_plugins.errors import UserError, shown
from qsci_plugins.schemes.scheme import Scheme

__all__ = ["describe", "make_scheme", "rebuild", "scheme_class", "scheme_names", "static_settings"]

GROUP = "qsci_plugins.schemes"

#: imported when they are named, as others' are
_OURS = tuple(
    EntryPoint(name, value, GROUP)
    for name, value in (
        ("adabm", "qsci_plugins.schemes.adabm:AdaBM"),
        ("cadyq", "qsci_plugins.schemes.cadyq:CADyQ"),
        ("qsci", "qsci_plugins.schemes.qsci:QSCI"),
    )
)


def _points() -> dict[str, EntryPoint]:
    """Of two with one name ours is taken."""
    return {point.name: point for point in (*entry_points(group=GROUP), *_OURS)}


def scheme_names() -> list[str]:
    """Every scheme that a recipe can name."""
    return sorted(_points())


def scheme_class(name: str) -> type[Scheme]:
    """The class registered under a name; UserError for an unknown one."""
    points = _points()
    if name not in points:
        near = difflib.get_close_matches(name, scheme_names(), 1, 0.0)
        raise UserError(f"scheme.name: no scheme is called {name!r}; did you mean {near[0]!r}?")
    try:
        loaded = points[name].load()
    except (ImportError, AttributeError) as error:
        raise UserError(f"scheme {name!r}: its entry point {points[name].value} cannot be imported: {error}") from error
    if not (isinstance(loaded, type) and issubclass(loaded, Scheme)):
        raise UserError(f"scheme {name!r}: its entry point {points[name].value} is not a qsci_plugins Scheme class")
    return loaded


def make_scheme(settings: Mapping[str, Any]) -> Scheme:
    """The scheme of a mapping such as {"name": "adabm", "weight_bits": 4}.

    Raises UserError for an unknown name, an unknown key (with the nearest valid one) and a value of the wrong type or size.

    >>> import qsci_plugins
    >>> qsci_plugins.make_scheme({"name": "adabm", "weight_bits": 4, "activation_bits": 6}).config.activation_bits
    6
    """
    if "name" not in settings:
        raise UserError(f"scheme.name is missing; it is one of {', '.join(scheme_names())}")
    scheme = scheme_class(str(settings["name"]))
    try:
        return scheme(scheme.Config(**settings))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            near = difflib.get_close_matches(key, list(scheme.Config.model_fields), 1, 0.0)
            raise UserError(f"scheme.{key}: unknown key; did you mean {near[0]!r}?") from None
        raise UserError(f"scheme.{key}: {first['msg']} (got {shown(first.get('input'))})") from None


def static_settings(bits: int) -> dict[str, Any]:
    """The settings of a scheme that suits any network: static ranges, `bits` for weights and activations.

    Below 8 bits layers get a bit more or less by what it costs the output, `bits` in the mean.
    """
    settings = {"name": "adabm", "weight_bits": bits, "activation_bits": bits, "image_mapping": False}
    return settings | ({"layer_mapping": False} if bits == 8 else {"layer_mapping": True, "mean_bits": float(bits)})


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


#: class paths of saved networks whose class has another home by now
_MOVED = {"qsci_plugins.schemes.image_grid:ImageGridActivation": "qsci_plugins.schemes.activation:ImageGridActivation"}


def _trusted_class(path: str) -> Any:
    path = _MOVED.get(path, path)
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

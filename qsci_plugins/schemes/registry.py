"""Schemes by name: ours, and those that other packages register under the entry point `qsci_plugins.schemes`."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from pydantic import ValidationError

from qsci_plugins.errors import UserError
from qsci_plugins.schemes.scheme import Scheme

__all__ = ["make_scheme", "scheme_class", "scheme_names"]

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
        raise UserError(f"scheme.{key}: {first['msg']} (got {first.get('input')!r})") from None

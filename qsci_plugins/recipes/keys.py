"""The keys that a recipe can have, as a tree, and the one that somebody probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel

__all__ = ["all_keys", "nearest_key"]


def all_keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every dotted key of a recipe class, depth first; list items are left out (`evaluate.set`)."""
    for key, inner in _children(model).items():
        yield f"{prefix}{key}"
        if inner is not None:
            yield from all_keys(inner, f"{prefix}{key}.")


def nearest_key(model: type[BaseModel], path: tuple[str, ...]) -> str:
    """The valid dotted key that is most like `path`: of the same section, else the same name elsewhere."""
    *sections, name = path
    section: type[BaseModel] | None = model
    for step in sections:
        if section is not None and not step.isdigit():
            section = _children(section).get(step)
    prefix = ".".join(sections)
    siblings = list(_children(section or model))
    near = difflib.get_close_matches(name, siblings, 1, 0.6)
    if not near:
        elsewhere = [key for key in all_keys(model) if key.rsplit(".", 1)[-1] == name]
        elsewhere += difflib.get_close_matches(".".join(path), list(all_keys(model)), 1, 0.75)
        if elsewhere:
            return elsewhere[0]
        near = difflib.get_close_matches(name, siblings, 1, 0.0)
    return f"{prefix}.{near[0]}" if prefix else near[0]


def _children(model: type[BaseModel]) -> dict[str, type[BaseModel] | None]:
    return {field.alias or name: _section(field.annotation) for name, field in model.model_fields.items()}


def _section(annotation: Any) -> type[BaseModel] | None:
    """The section that a field holds, itself or as items of a list; None for plain values."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for inner in get_args(annotation) if (found := _section(inner)) is not None), None)

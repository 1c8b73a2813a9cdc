"""The keys that a recipe can have, as a tree, and the one that somebody probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel, Tag

from qsci_plugins.recipes.training_schema import TAG

__all__ = ["all_keys", "nearest_key"]


def all_keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every dotted key of a recipe class, depth first; list items are left out (`evaluate.set`)."""
    for key, annotation in _children(model).items():
        yield f"{prefix}{key}"
        inner = [one for section in _sections(annotation).values() for one in all_keys(section, f"{prefix}{key}.")]
        yield from dict.fromkeys(inner)


def nearest_key(model: type[BaseModel], path: tuple[str, ...]) -> str:
    """The valid dotted key that is most like `path`: of the same section, else the same name elsewhere.

    Where a key holds one of several kinds of sections, `path` may have the kind's tag behind it.
    """
    *sections, name = path
    section: type[BaseModel] | None = model
    kinds: dict[str, type[BaseModel]] = {}
    for step in sections:
        if step in kinds:
            section = kinds[step]
        elif section is not None and not step.isdigit():
            kinds = _sections(_children(section).get(step))
            section = next(iter(kinds.values()), None)
    sections = [step for step in sections if not step.startswith(TAG)]
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


def _children(model: type[BaseModel]) -> dict[str, Any]:
    return {field.alias or name: field.annotation for name, field in model.model_fields.items()}


def _sections(annotation: Any) -> dict[str, type[BaseModel]]:
    """The sections that a field holds, itself or as items of a list, by tag ("" without one); empty for plain values."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return {"": annotation}
    found: dict[str, type[BaseModel]] = {}
    tags = [inner.tag for inner in get_args(annotation) if isinstance(inner, Tag)]
    for inner in get_args(annotation):
        for tag, section in _sections(inner).items():
            found.setdefault(tags[0] if tags else tag, section)
    return found

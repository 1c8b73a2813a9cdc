"""Ten thousand recipes that nobody would write: each one is valid, and reads back, or is one clear error."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from qsci_plugins.errors import UserError
from qsci_plugins.recipes.library import shipped_recipes
from qsci_plugins.recipes.reading import make_recipe, read_recipe, recipe_text
from qsci_plugins.recipes.yaml_text import read_mapping

_WORDS = [
    "name",
    "adabm",
    "cadyq",
    "qsci",
    "builtin",
    "weights",
    "body.*",
    "",
    "a: b",
    "\x00",
    "ü",
    "../x",
    "None",
    "4",
]
_SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 20),
    st.integers(),
    st.floats(),
    st.sampled_from(_WORDS),
    st.text(max_size=12),
)
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(_WORDS) | st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=6,
)


@pytest.mark.slow
@given(st.data())
@settings(max_examples=10_000, deadline=None, suppress_health_check=list(HealthCheck), database=None)
def test_every_recipe_is_valid_or_one_clear_error(tmp_path_factory: Any, data: st.DataObject) -> None:
    mapping = copy.deepcopy(data.draw(st.sampled_from(_SHIPPED)))
    for _ in range(data.draw(st.integers(1, 3))):
        _mutate(mapping, data)
    refusal = ""
    try:
        recipe = make_recipe(mapping, "some.yaml")
    except UserError as error:
        refusal = str(error)
    event("refused" if refusal else "valid")
    if refusal:
        assert refusal.startswith("some.yaml")
        assert len(refusal.splitlines()) <= 12
        return
    file: Path = tmp_path_factory.getbasetemp() / "again.yaml"
    file.write_text(recipe_text(recipe))
    assert read_recipe(file) == recipe


def _mutate(mapping: dict[str, Any], data: st.DataObject) -> None:
    """Replaces, adds or removes one value somewhere."""
    node: Any = mapping
    while True:
        keys = sorted(node) if isinstance(node, dict) else list(range(len(node)))
        if not keys:
            return
        key = data.draw(st.sampled_from(keys))
        inner = node[key]
        if isinstance(inner, (dict, list)) and data.draw(st.booleans()):
            node = inner
            continue
        break
    match data.draw(st.sampled_from(["replace", "near", "remove", "add"])):
        case "replace":
            node[key] = data.draw(_VALUES)
        case "near" if isinstance(inner, (int, float)) and not isinstance(inner, bool) and math.isfinite(inner):
            node[key] = data.draw(
                st.sampled_from([inner + 1, inner - 1, -inner, inner * 1000, inner + 0.5, str(inner)])
            )
        case "remove":
            del node[key]
        case _ if isinstance(node, dict):
            node[data.draw(st.sampled_from(_WORDS) | st.text(max_size=8))] = data.draw(_VALUES)


_SHIPPED = [read_mapping(Path(recipe.file)) for recipe in shipped_recipes()]

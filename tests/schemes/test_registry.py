"""A scheme's settings as a recipe writes them."""

from __future__ import annotations

from typing import Any

import pytest

from qsci_plugins.errors import UserError
from qsci_plugins.schemes.registry import make_scheme


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"name": "adabm", "weight_bits": "4"}, "scheme.weight_bits: .*got '4'"),
        ({"name": "adabm", "image_mapping": 1}, "scheme.image_mapping: .*got 1"),
        ({"name": "adabm", "clipping": float("nan")}, "scheme.clipping: .*got nan"),
        ({"name": "cadyq", "candidates": ["4", 6]}, "scheme.candidates.0: .*got '4'"),
        ({"name": "qsci", "weight_bits": True}, "scheme.weight_bits: .*got True"),
        ({"name": "qsci", "weight_bitz": 4}, "did you mean 'weight_bits'"),
    ],
)
def test_a_wrong_value_is_named(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        make_scheme(settings)


@pytest.mark.parametrize(
    ("settings", "key", "value"),
    [
        ({"name": "cadyq", "candidates": [4, 6]}, "candidates", (4, 6)),
        ({"name": "qsci", "attention": ["blocks.*"]}, "attention", ("blocks.*",)),
        ({"name": "adabm", "clipping": 1}, "clipping", 1.0),
    ],
)
def test_lists_and_whole_numbers_are_as_yaml_writes_them(settings: dict[str, Any], key: str, value: object) -> None:
    assert getattr(make_scheme(settings).config, key) == value

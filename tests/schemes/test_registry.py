"""A scheme's settings as a recipe writes them."""

from __future__ import annotations

from typing import Any

import pytest

from qsci_plugins.errors import UserError
from qsci_plugins.schemes.activation import ImageGridActivation
from qsci_plugins.schemes.registry import describe, make_scheme, rebuild


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"name": "adabm", "weight_bits": "4"}, "scheme.weight_bits: .*got '4'"),
        ({"name": "adabm", "image_mapping": 1}, "scheme.image_mapping: .*got 1"),
        ({"name": "adabm", "clipping": float("nan")}, "scheme.clipping: .*got nan"),
        ({"name": "cadyq", "candidates": ["4", 6]}, "scheme.candidates.0: .*got '4'"),
        ({"name": "qsci", "weight_bits": True}, "scheme.weight_bits: .*got True"),
        ({"name": "adabm", "mean_bits": ["x"] * 3000}, r"scheme.mean_bits: .{,60}got \['x', .{,60}\)$"),
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


def test_a_class_that_moved_is_found_by_the_path_that_old_files_hold() -> None:
    quantizer = ImageGridActivation(3, clipping=0.25)
    described = describe(quantizer)
    old = {**described, "class": "qsci_plugins.schemes.image_grid:ImageGridActivation"}
    rebuilt = rebuild(old)
    assert type(rebuilt) is ImageGridActivation
    assert describe(rebuilt) == described

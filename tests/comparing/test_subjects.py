from __future__ import annotations

import json
from pathlib import Path

import pytest

from qsci_plugins.comparing.subjects import NetworkShape, Subject
from qsci_plugins.recipes.reading import make_recipe
from qsci_plugins.recipes.schema import Recipe


@pytest.mark.parametrize(
    ("steps", "seconds"),
    [
        ({"calibration": 1.5, "fine_tuning": 2.0, "export": 7.0}, 3.5),
        ({"calibration": 1.5, "training": 40.0, "export": 7.0}, 41.5),
        ({"calibration": 1.5}, 1.5),
    ],
    ids=["fine-tuned", "trained", "calibrated"],
)
def test_seconds_are_those_until_the_network_is_ready(tmp_path: Path, steps: dict[str, float], seconds: float) -> None:
    recipe = make_recipe({"version": 1, "model": {"architecture": "edsr"}, "scheme": {"name": "cadyq"}})
    assert isinstance(recipe, Recipe)
    subject = Subject("run", recipe, "edsr", NetworkShape(4, 3, None), "", tmp_path)
    assert subject.seconds() is None
    (tmp_path / "metrics.json").write_text(json.dumps({"version": 2, "seconds": steps}))
    assert subject.seconds() == seconds

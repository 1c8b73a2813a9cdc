from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qsci_plugins.data import write_image
from qsci_plugins.errors import UserError
from qsci_plugins.pipeline.image_prepare import prepare, resolve
from qsci_plugins.progress import Progress
from qsci_plugins.recipes import Recipe, make_recipe
from qsci_plugins.recipes.schema import CADyQTraining
from qsci_plugins.training.cadyq import CADyQSettings

SMALL: dict[str, Any] = {
    "version": 1,
    "model": {"architecture": "edsr", "scale": 2, "settings": {"blocks": 1, "width": 4}},
    "scheme": {"name": "cadyq"},
    "place": {"targets": "body.*.body.*"},
    "calibrate": {"count": 5, "patch": 16, "batch": 2},
    "train": {"schedule": "cadyq", "data": [{"path": "photos"}], "steps": 3},
}


def _recipe(*overrides: str) -> Recipe:
    made = make_recipe(copy.deepcopy(SMALL), overrides=overrides)
    assert isinstance(made, Recipe)
    return made


@pytest.fixture(autouse=True)
def _photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    write_image(tmp_path / "photos" / "one.png", np.zeros((120, 120, 3), np.uint8))


def test_the_section_is_that_of_the_training() -> None:
    fields = {name: field.default for name, field in CADyQTraining.model_fields.items()}
    for field in dataclasses.fields(CADyQSettings):
        assert field.name in fields
        if field.name not in ("steps", "warm_up"):
            assert fields[field.name] == field.default, field.name
    names = {field.name for field in dataclasses.fields(CADyQSettings)}
    assert set(fields) - names == {"schedule", "data", "patch", "tensorboard", "picture_every"}


def test_a_resolved_recipe_means_the_same_anywhere(tmp_path: Path) -> None:
    train = resolve(_recipe()).train
    assert isinstance(train, CADyQTraining)
    assert train.data[0].path == str(tmp_path / "photos")
    assert prepare(resolve(_recipe()), None, Progress()).scheme.config.name == "cadyq"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.data=null", r"--set train.data=null: train.data: .*not None"),
        ("train.data=[]", r"train.data: .*at least 1"),
        ("train.selector_rate=-1", r"train.selector_rate: "),
        ("train.selector_start=soft", r"train.selector_start: should be 'widest' or 'spread', not 'soft'"),
        ("train.selector_rat=1", r"unknown key 'train.selector_rat'; the nearest is 'train.selector_rate'"),
        ("train.schedule=cadyk", r"train.schedule: should be 'cadyq', not 'cadyk'"),
        ("inference.patsh=96", r"unknown key 'inference.patsh'; the nearest is 'inference.patch'"),
        ("inference.step=97", r"inference: a step of 97 leaves gaps between patches of 96"),
    ],
)
def test_a_wrong_key_is_named(override: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        _recipe(override)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.data.0.path=nowhere", r"train.data.0.path: .*nowhere is not a folder"),
        ("train.data.0.path=$QSCI_NOT_SET/x", r"train.data.0.path: .*QSCI_NOT_SET"),
        ("scheme={name: adabm}", r"train.schedule: cadyq trains CADyQ's bit selectors; the scheme 'adabm' has none"),
    ],
)
def test_what_does_not_fit_is_refused_before_the_long_work(override: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        prepare(_recipe(override), None, Progress())


def test_a_missing_folder_is_named() -> None:
    mapping = copy.deepcopy(SMALL)
    del mapping["train"]["data"]
    with pytest.raises(UserError, match=r"the key 'train.data' is missing"):
        make_recipe(mapping)

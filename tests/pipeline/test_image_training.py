from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from noted import Notes

from qsci_plugins.data import write_image
from qsci_plugins.errors import UserError
from qsci_plugins.pipeline.image_prepare import prepare, resolve
from qsci_plugins.pipeline.run import run_recipe
from qsci_plugins.progress import Progress
from qsci_plugins.recipes import Recipe, make_recipe
from qsci_plugins.recipes.schema import CADyQTraining

SMALL: dict[str, Any] = {
    "version": 1,
    "model": {"architecture": "edsr", "scale": 2, "settings": {"blocks": 1, "width": 4}},
    "scheme": {"name": "cadyq"},
    "place": {"targets": "body.*.body.*"},
    "calibrate": {"count": 5, "patch": 16, "batch": 2},
    "train": {"schedule": "cadyq", "data": [{"path": "photos"}], "steps": 3},
}


def _recipe(*overrides: str) -> Recipe:
    checked = make_recipe(copy.deepcopy(SMALL), overrides=overrides)
    assert isinstance(checked, Recipe)
    return checked


@pytest.fixture(autouse=True)
def _photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    write_image(tmp_path / "photos" / "one.png", np.zeros((120, 120, 3), np.uint8))


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


SECTIONS = {
    "training": {
        "scheme": {"name": "cadyq"},
        "train": {**SMALL["train"], "patch": 8, "batch": 2, "warm_up": 1, "steps": 2, "cpu": True},
    },
    "fine-tuning": {"scheme": {"name": "adabm"}, "train": {"steps": 3, "schedule": "published", "turn": 1}},
}


@pytest.mark.parametrize("backend", ["nncf", "brevitas"])
@pytest.mark.parametrize("kind", list(SECTIONS))
def test_tensorboard_sees_a_training_and_does_not_change_it(kind: str, backend: str, tmp_path: Path) -> None:
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    quiet = {**copy.deepcopy(SMALL), **copy.deepcopy(SECTIONS[kind]), "backend": backend}
    quiet["train"] |= {"precision": "float32", "checkpoint_every": 2}
    quiet["export"] = {"openvino": {"mode": "none"}}
    seen = {**quiet, "train": {**quiet["train"], "tensorboard": True, "picture_every": 2}}
    states = []
    for name, mapping in ("quiet", quiet), ("seen", seen):
        checked = make_recipe(mapping)
        assert isinstance(checked, Recipe)
        output = run_recipe(checked, tmp_path / name)
        states.append(torch.load(output / "checkpoint.pt", weights_only=True)["state_dict"])
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    events = accumulators.EventAccumulator(str(tmp_path / "seen" / "tensorboard"))
    events.Reload()
    assert events.Scalars("train/loss")[-1].step == 3
    (picture,) = events.Images(events.Tags()["images"][0])
    assert (picture.width, picture.height) == (32, 64) if kind == "fine-tuning" else (16, 32)
    training = json.loads((tmp_path / "seen" / "metrics.json").read_text())["training"]
    assert (training["steps"], [row["step"] for row in training["log"]]) == (3, [2, 3])
    assert not (tmp_path / "quiet" / "tensorboard").exists()


@pytest.mark.parametrize(("steps", "said"), [(39, False), (40, True)])
def test_a_fine_tuning_that_sees_few_patches_often_says_so(tmp_path: Path, steps: int, said: bool) -> None:
    progress = Notes()
    recipe = _recipe(
        "scheme={name: adabm}",
        "calibrate={count: 2, patch: 16, batch: 2}",
        f"train={{schedule: joint, steps: {steps}, batch: 2}}",
        "evaluate=[]",
        "export.openvino.mode=none",
    )
    run_recipe(recipe, tmp_path / "out", progress=progress, latency=False)
    heard = [note for note in progress.notes if note.startswith("fine-tuning sees each of the 2 patches 40 times")]
    assert len(heard) == said

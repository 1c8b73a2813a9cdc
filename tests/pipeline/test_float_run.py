from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from noted import StopAt
from safetensors.torch import load_file

from qsci_plugins.data import write_image
from qsci_plugins.errors import UserError
from qsci_plugins.pipeline.float_run import train_recipe
from qsci_plugins.recipes import FloatRecipe, make_recipe


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for index in range(2):
        write_image(folder / f"{index}.png", generator.integers(0, 256, (40, 48, 3), dtype=np.uint8))
    return folder


def recipe(photos: Path, *overrides: str) -> FloatRecipe:
    mapping = {
        "version": 1,
        "model": {"architecture": "edsr", "scale": 2, "settings": {"blocks": 1, "width": 4}},
        "data": [{"path": str(photos)}],
        "train": {"steps": 6, "batch": 2, "patch": 8, "checkpoint_every": 2, "cpu": True},
    }
    checked = make_recipe(mapping, overrides=overrides)
    assert isinstance(checked, FloatRecipe)
    return checked


def test_a_trained_network_and_what_it_says_about_itself(photos: Path, tmp_path: Path) -> None:
    wanted = recipe(photos, "evaluate=[{set: builtin}]")
    output = train_recipe(wanted, tmp_path / "out")
    assert {file.name for file in output.iterdir()} == {"weights.safetensors", "metrics.json", "recipe.yaml"}
    metrics = json.loads((output / "metrics.json").read_text())
    assert metrics["training"]["steps"] == 6
    assert metrics["sets"]["builtin"]["float"]["psnr"] > 5
    again = recipe(photos, f"model.weights={output / 'weights.safetensors'}", "train.steps=1")
    train_recipe(again, tmp_path / "continued")


def test_an_interrupted_training_ends_with_the_same_weights(photos: Path, tmp_path: Path) -> None:
    whole = train_recipe(recipe(photos), tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt, match="step 3 of training; the same command goes on"):
        train_recipe(recipe(photos), tmp_path / "halves", progress=StopAt("training", 3))
    assert not (tmp_path / "halves").exists()
    halves = train_recipe(recipe(photos), tmp_path / "halves")
    first, second = (load_file(folder / "weights.safetensors") for folder in (whole, halves))
    assert all((first[name] == second[name]).all() for name in first)
    assert not (tmp_path / "halves.partial").exists()


def test_tensorboard_sees_a_training(photos: Path, tmp_path: Path) -> None:
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    output = train_recipe(recipe(photos, "train.tensorboard=true", "train.picture_every=3"), tmp_path / "out")
    events = accumulators.EventAccumulator(str(output / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [1, 2, 3, 4, 5, 6]
    assert [event.step for event in events.Images(events.Tags()["images"][0])] == [3, 6]
    metrics = json.loads((output / "metrics.json").read_text())
    assert [row["step"] for row in metrics["training"]["log"]] == [2, 4, 6]
    assert metrics["seconds"]["training"] > 0


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.0.path=/nowhere/at/all"], "/nowhere/at/all is not a folder"),
        (["data.0.path=$QSCI_UNSET/x"], "data.0.path: .*QSCI_UNSET"),
        (["train.patch=64"], "at least 128 pixels"),
        (["model.weights=missing.pth"], "model: there is no weights file missing.pth"),
        (["evaluate=[{set: Set5}]"], "evaluate.0: .*Set5.*--data"),
        (["evaluate=[{set: builtin, scale: 3}]"], "evaluate.0.scale is 3, but the network's scale is 2"),
        (["model.architecture=esdr"], "model: unknown architecture 'esdr'"),
        (["model.settings.depth=2"], "model: edsr has no setting 'depth'"),
    ],
)
def test_mistakes_leave_nothing_behind(photos: Path, tmp_path: Path, overrides: list[str], message: str) -> None:
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match=message):
        train_recipe(recipe(photos, *overrides), tmp_path / "out")
    assert sorted(tmp_path.rglob("*")) == before

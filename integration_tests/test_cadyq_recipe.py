"""CADyQ trained by a recipe, from the command line: both backends, patch-wise inference, kill and resume, bad input."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from qsci_plugins.cli import main

RECIPE = """version: 1
model: {architecture: edsr, scale: 2, settings: {blocks: 2, width: 8}}
scheme: {name: cadyq}
place: {targets: ["body.*.body.*"]}
calibrate: {count: 6, patch: 24, batch: 3}
train:
  schedule: cadyq
  data: [{path: photos}]
  steps: 6
  warm_up: 3
  batch: 2
  patch: 16
  checkpoint_every: 2
  precision: float32
  cpu: true
inference: {patch: 48, step: 42}
evaluate: [{set: builtin}]
export: {openvino: {mode: none}}
"""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (80, 90, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "photos" / "one.png")
    (tmp_path / "cadyq.yaml").write_text(RECIPE)
    return tmp_path / "cadyq.yaml"


def _metrics(folder: Path) -> Any:
    return json.loads((folder / "metrics.json").read_text())


@pytest.mark.parametrize("backend", ["nncf", "brevitas"])
def test_a_run_trains_measures_patches_and_draws_their_bits(
    recipe: Path, tmp_path: Path, backend: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["run", str(recipe), "-o", "out", "--set", f"backend={backend}", "--set", "train.selector_start=spread"]
    assert main(command) == 0
    metrics = _metrics(tmp_path / "out")
    assert [row["step"] for row in metrics["training"]["log"]] == [2, 4, 6, 8, 9]
    assert metrics["training"]["log"][0]["fab"] == 8
    assert set(metrics["training"]["log"][0]) == {"step", "loss", "l1", "psnr", "fab"}
    assert metrics["seconds"]["training"] > 0
    row = metrics["sets"]["builtin"]["torch"]
    assert 4 <= row["fab"] <= 8
    assert row["patches"]["count"] > 20
    assert row["patches"]["gradient_and_fab"]["spearman"] > 0
    assert "Spearman" in (tmp_path / "out" / "summary.md").read_text()
    for photo in ("chelsea", "coffee", "flower"):
        assert Image.open(tmp_path / "out" / f"bits_{photo}.png").width > 100
    capsys.readouterr()
    assert main(["evaluate", "out"]) == 0
    printed = capsys.readouterr().out
    assert "FAB bits" in printed
    assert "Spearman" in printed


def test_the_model_folder_of_a_trained_network(recipe: Path, tmp_path: Path) -> None:
    assert main(["run", str(recipe), "-o", "out", "--set", "export.openvino={mode: static, tile: [48, 48]}"]) == 0
    row = _metrics(tmp_path / "out")["sets"]["builtin"]
    assert abs(row["torch"]["psnr"] - row["openvino"]["psnr"]) < 0.1
    # the graph chooses its bits itself and does not tell
    assert 4 <= row["openvino"]["fab"] <= 8


def test_a_killed_run_ends_as_one_that_was_not(recipe: Path, tmp_path: Path) -> None:
    quick = ["--set", "evaluate=[]", "--set", "train.steps=40"]
    assert main(["run", str(recipe), "-o", "whole", *quick]) == 0
    command = [sys.executable, "-m", "qsci_plugins", "run", str(recipe), "-o", "killed", *quick]
    state = tmp_path / "killed.partial" / "training.state"
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not state.is_file() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert state.is_file()
    assert main(["run", str(recipe), "-o", "killed", *quick]) == 0
    first, second = (
        torch.load(tmp_path / name / "checkpoint.pt", weights_only=True)["state_dict"] for name in ("whole", "killed")
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert [row["step"] for row in _metrics(tmp_path / "killed")["training"]["log"]] == [*range(2, 44, 2), 43]
    assert not list((tmp_path / "killed").glob("*.state"))


def test_no_training_images(recipe: Path, refused: Callable[..., str]) -> None:
    message = refused("run", recipe, "-o", "out", "--set", "train.data.0.path=nowhere")
    assert "train.data.0.path" in message
    assert "nowhere is not a folder" in message
    small = refused("run", recipe, "-o", "out", "--set", "train.patch=64")
    assert "no training image is at least 128 pixels" in small

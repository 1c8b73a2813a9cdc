"""Float training on a GPU by the commands, of images and of video; what draws ahead changes no weight."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gpu_size import SMALL
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

import qsci_plugins
from qsci_plugins.cli import main
from qsci_plugins.recipes.schema import FloatRecipe, FloatVideoRecipe
from qsci_plugins.training.settings import FloatTraining

pytestmark = pytest.mark.gpu

STEPS = 3 if SMALL else 40


@pytest.fixture(autouse=True)
def repeatable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some sums of a GPU come in any order."""
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """photos/ with two images, and clips/scene/ with frames of a gradient that moves."""
    folder = tmp_path_factory.mktemp("data")
    generator = np.random.default_rng(0)
    (folder / "photos").mkdir()
    for index in range(2):
        Image.fromarray(generator.integers(0, 256, (64, 80, 3), dtype=np.uint8)).save(
            folder / "photos" / f"{index}.png"
        )
    (folder / "clips" / "scene").mkdir(parents=True)
    ramp = np.add.outer(np.arange(64), np.arange(64))
    for index in range(8):
        frame = ((ramp * 2 + 8 * index) % 256).astype(np.uint8)
        Image.fromarray(np.repeat(frame[..., None], 3, axis=2)).save(folder / "clips" / "scene" / f"{index:03}.png")
    return folder


def images(folder: Path, **train: Any) -> dict[str, Any]:
    size = {"blocks": 1, "width": 4} if SMALL else {"blocks": 4, "width": 32}
    return {
        "version": 1,
        "model": {"architecture": "edsr", "scale": 2, "settings": size},
        "data": [{"path": str(folder / "photos")}],
        "train": {"steps": STEPS, "batch": 2 if SMALL else 16, "patch": 16, **train},
    }


def video(folder: Path, **train: Any) -> dict[str, Any]:
    size = {"in_ch": 2, "units": 1, "group_num": 1} if SMALL else {"in_ch": 16, "units": 2, "group_num": 2}
    return {
        "version": 1,
        "model": {"architecture": "efficientsci", "settings": size},
        "clips": {"folders": [str(folder / "clips")], "frames": 4, "size": 32, "resize": False},
        "train": {"phases": [{"crop": 16, "steps": STEPS, "rate": 1e-3}], "batch": 2, **train},
    }


def trained(recipe: dict[str, Any], output: Path, device: str) -> dict[str, Tensor]:
    checked = qsci_plugins.make_recipe(recipe)
    assert isinstance(checked, FloatRecipe | FloatVideoRecipe)
    qsci_plugins.train(checked, output, device=device)
    devices = json.loads((output / "metrics.json").read_text())["machine"]["devices"]
    assert devices["training"][0].startswith(device)
    weights = load_file(output / "weights.safetensors")
    assert all(tensor.isfinite().all() for tensor in weights.values())
    return weights


def assert_equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    differing = [name for name in first if not torch.equal(first[name], second[name])]
    assert not differing


@pytest.mark.parametrize("task", [images, video])
def test_a_float_network_is_trained(task: Any, folder: Path, device: str, tmp_path: Path) -> None:
    weights = trained(task(folder), tmp_path / "out", device)
    log = json.loads((tmp_path / "out" / "metrics.json").read_text())["training"]
    assert log["steps"] == STEPS
    start = qsci_plugins.load_network(
        task(folder)["model"]["architecture"],
        None,
        *([2] if task is images else []),
        **task(folder)["model"]["settings"],
    ).module.state_dict()
    assert any(not torch.equal(start[name], tensor) for name, tensor in weights.items())


@pytest.mark.parametrize("task", [images, video])
@pytest.mark.skipif("workers" not in FloatTraining.model_fields, reason="nothing draws ahead in this version")
def test_processes_that_draw_ahead_change_no_weight(task: Any, folder: Path, device: str, tmp_path: Path) -> None:
    alone = trained(task(folder, workers=0), tmp_path / "alone", device)
    ahead = trained(task(folder, workers=2), tmp_path / "ahead", device)
    assert_equal(alone, ahead)


def test_the_command_line_trains_there(folder: Path, device: str, tmp_path: Path) -> None:
    recipe = qsci_plugins.make_recipe(images(folder))
    qsci_plugins.write_recipe(recipe, tmp_path / "train.yaml")
    command = ["train", str(tmp_path / "train.yaml"), "-o", str(tmp_path / "out"), "--device", device]
    assert main(command) == 0
    assert (tmp_path / "out" / "weights.safetensors").is_file()


def test_a_gpu_that_is_not_there_is_one_error(
    folder: Path, device: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    qsci_plugins.write_recipe(qsci_plugins.make_recipe(images(folder)), tmp_path / "train.yaml")
    assert main(["train", str(tmp_path / "train.yaml"), "-o", str(tmp_path / "out"), "--device", "cuda:77"]) == 2
    assert capsys.readouterr().err.startswith("qsci: error: device cuda:77: ")


@pytest.mark.skipif(SMALL, reason="a CPU has no memory of this kind")
def test_a_batch_that_a_gpu_cannot_hold_is_one_error(
    folder: Path, device: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.cuda.set_per_process_memory_fraction(0.001, device)
    try:
        recipe = images(folder, batch=512, patch=32)
        qsci_plugins.write_recipe(qsci_plugins.make_recipe(recipe), tmp_path / "train.yaml")
        assert main(["train", str(tmp_path / "train.yaml"), "-o", str(tmp_path / "out"), "--device", device]) == 2
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)
        torch.cuda.empty_cache()
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(
        "qsci: error: the GPU has not enough memory for this (CUDA out of memory. Tried to allocate "
    )
    assert error.endswith("--device cpu")

"""Several processes, as `accelerate launch` starts them, on gloo."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from qsci_plugins.errors import UserError
from qsci_plugins.pipeline.float_run import train_recipe
from qsci_plugins.pipeline.output import is_main, process_count, shared_work_folder
from qsci_plugins.pipeline.run import run_recipe
from qsci_plugins.recipes import FloatVideoRecipe, VideoRecipe, make_recipe
from qsci_plugins.recipes.yaml_text import write_yaml

RECIPE = {
    "version": 1,
    "model": {"architecture": "efficientsci", "settings": {"in_ch": 2, "units": 1, "group_num": 1}},
    "clips": {"frames": 3, "size": 16, "resize": False},
    "train": {
        "phases": [{"crop": 8, "steps": 4, "rate": 1e-3}],
        "batch": 4,
        "precision": "float32",
        "ema": 0.5,
        "clip": 1.0,
        "checkpoint_every": 2,
        "cpu": True,
    },
}


#: every part of Q-SCI; the gradients of steps are large against those of weights, so that clipping feels them
QUANTIZED = {
    **RECIPE,
    "scheme": {"name": "qsci", "weight_bits": 4, "activation_bits": 4},
    "shortcuts": ["fem.*"],
    "calibrate": {"count": 2, "patch": 8, "batch": 2},
    "export": {"openvino": {"mode": "none"}},
}


#: `qsci`, which leaves beside itself whether a process is still in the group at its very end
ENDING = """
import atexit, os, pathlib, sys
from torch import distributed
end = pathlib.Path(__file__).with_name("end." + os.environ["RANK"])
atexit.register(lambda: end.write_text("in" if distributed.is_initialized() else "out"))
from qsci_plugins.cli import main
sys.exit(main())
"""


def launch(
    tmp_path: Path,
    port: int,
    *more: str,
    verb: str = "train",
    recipe: dict[str, Any] = RECIPE,
    program: Sequence[str] = ("-m", "qsci_plugins"),
) -> subprocess.Popen[str]:
    file = tmp_path / "recipe.yaml"
    file.write_text(write_yaml(recipe))
    # with --cpu, or without either, accelerate starts a single process on a machine without GPUs
    accelerate = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "2", "--multi_gpu"]
    command = [*accelerate, "--main_process_port", str(port), *program, verb, str(file), *more]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )


def recipe() -> FloatVideoRecipe:
    checked = make_recipe(RECIPE)
    assert isinstance(checked, FloatVideoRecipe)
    return checked


def test_two_processes_give_the_result_of_one_with_the_same_global_batch(tmp_path: Path) -> None:
    (tmp_path / "qsci.py").write_text(ENDING)
    two = launch(tmp_path, 29611, "-o", str(tmp_path / "two"), program=[str(tmp_path / "qsci.py")])
    alone = train_recipe(recipe(), tmp_path / "one")
    output, _ = two.communicate(timeout=300)
    assert two.returncode == 0, output
    # of a group that is still there, threads abort some processes at their end
    assert [(tmp_path / f"end.{rank}").read_text() for rank in range(2)] == ["out", "out"]
    first, second = (load_file(folder / "weights.safetensors") for folder in (alone, tmp_path / "two"))
    for name, tensor in first.items():
        assert torch.allclose(tensor, second[name], atol=2e-5), name
    assert json.loads((tmp_path / "two" / "metrics.json").read_text())["training"]["steps"] == 4
    assert not (tmp_path / "two.partial").exists()
    lonely = launch(tmp_path, 29616, "--set", "train.batch=3", "-o", str(tmp_path / "three"))
    output, _ = lonely.communicate(timeout=300)
    assert "train.batch is 3, which 2 processes cannot share" in output
    # the folder is there now: all processes hear of it, and none waits for another
    refused = launch(tmp_path, 29612, "-o", str(tmp_path / "two"))
    output, _ = refused.communicate(timeout=300)
    assert refused.returncode != 0
    assert "exists; name another" in output


EDSR = {"architecture": "edsr", "scale": 2, "settings": {"blocks": 2, "width": 4}}
CALIBRATED = {"calibrate": {"count": 4, "patch": 16, "batch": 4}, "export": {"openvino": {"mode": "none"}}}


def images(kind: str, photos: Path) -> dict[str, Any]:
    """A recipe that trains on images: a float network, CADyQ's selectors, or a fine-tuning."""
    from PIL import Image

    photos.mkdir(exist_ok=True)
    noise = np.random.default_rng(0).integers(0, 256, (40, 48, 3), dtype=np.uint8)
    Image.fromarray(noise).save(photos / "photo.png")
    data = [{"path": str(photos)}]
    common = {"batch": 4, "checkpoint_every": 2, "precision": "float32"}
    small = {**common, "patch": 8, "cpu": True, "steps": 4}
    if kind == "float":
        return {"version": 1, "model": EDSR, "data": data, "train": {**small, "clip": 1.0}}
    if kind == "cadyq":
        train = {**small, "schedule": "cadyq", "data": data, "warm_up": 2}
        return {"version": 1, "model": EDSR, "scheme": {"name": "cadyq"}, "train": train, **CALIBRATED}
    return {"version": 1, "model": EDSR, "scheme": {"name": "adabm"}, "train": {**common, "steps": 4}, **CALIBRATED}


@pytest.mark.parametrize("kind", ["float", pytest.param("cadyq", marks=pytest.mark.slow), "fine-tuning"])
def test_two_processes_train_on_images_as_one_does(kind: str, tmp_path: Path) -> None:
    wanted = images(kind, tmp_path / "photos")
    verb = "train" if kind == "float" else "run"
    two = launch(tmp_path, 29620, "-o", str(tmp_path / "two"), verb=verb, recipe=wanted)
    checked: Any = make_recipe(wanted)
    alone = (train_recipe if kind == "float" else run_recipe)(checked, tmp_path / "one")
    output, _ = two.communicate(timeout=300)
    assert two.returncode == 0, output
    assert "another process is writing" not in output
    if kind == "float":
        first, second = (load_file(folder / "weights.safetensors") for folder in (alone, tmp_path / "two"))
    else:
        first, second = (
            torch.load(folder / "checkpoint.pt", weights_only=True)["state_dict"]
            for folder in (alone, tmp_path / "two")
        )
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.allclose(tensor, second[name], atol=2e-5), name
    steps = json.loads((tmp_path / "two" / "metrics.json").read_text())["training"]["steps"]
    assert steps == (6 if kind == "cadyq" else 4)
    assert not (tmp_path / "two.partial").exists()


@pytest.mark.parametrize("backend", ["nncf", pytest.param("brevitas", marks=pytest.mark.slow)])
def test_two_processes_quantize_as_one_does(backend: str, tmp_path: Path) -> None:
    wanted = {**QUANTIZED, "backend": backend}
    two = launch(tmp_path, 29615, "-o", str(tmp_path / "two"), verb="run", recipe=wanted)
    checked = make_recipe(wanted)
    assert isinstance(checked, VideoRecipe)
    alone = run_recipe(checked, tmp_path / "one")
    output, _ = two.communicate(timeout=300)
    assert two.returncode == 0, output
    first, second = (
        torch.load(folder / "checkpoint.pt", weights_only=True)["state_dict"] for folder in (alone, tmp_path / "two")
    )
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.allclose(tensor, second[name], atol=1e-6), name


@pytest.mark.slow
def test_a_process_that_dies_loses_nothing_of_the_last_checkpoint(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    steps = ("--set", "train.phases.0.steps=400", "-o", str(folder))
    running = launch(tmp_path, 29613, *steps)
    state = tmp_path / "out.partial" / "training.state"
    deadline = time.monotonic() + 240
    while not state.is_file() and time.monotonic() < deadline:
        time.sleep(0.2)
    children = subprocess.run(["pgrep", "-P", str(running.pid)], capture_output=True, text=True).stdout.split()
    os.kill(int(children[-1]), signal.SIGKILL)
    output, _ = running.communicate(timeout=300)
    assert running.returncode != 0
    assert "qsci: error: another process of this run ended before its time; the steps done are kept in" in output
    assert state.is_file()
    reached = torch.load(state, weights_only=True)["step"]
    assert reached >= 2
    again = launch(tmp_path, 29614, *steps)
    output, _ = again.communicate(timeout=500)
    assert again.returncode == 0, output
    assert json.loads((folder / "metrics.json").read_text())["training"]["steps"] == 400


def test_one_process_is_the_main_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert (process_count(), is_main()) == (1, True)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert (process_count(), is_main()) == (2, False)
    with pytest.raises(UserError, match=r"train\.batch is 3, which 2 processes cannot share"):
        train_recipe(
            make_recipe(RECIPE, overrides=["train.batch=3"]),  # type: ignore[arg-type]
            tmp_path / "out",
        )


def test_a_lost_process_is_an_error_for_people(tmp_path: Path) -> None:
    def lose_the_other() -> None:
        with shared_work_folder(tmp_path / "out", "recipe") as work:
            (work / "training.state").write_bytes(b"steps")
            raise RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:31235")

    with pytest.raises(UserError, match=r"another process.*the steps done are kept"):
        lose_the_other()

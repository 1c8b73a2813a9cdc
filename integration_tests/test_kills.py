"""Commands that are killed at twenty random moments and given again lose nothing, and end as if they had not been."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from clip_files import smooth_frames, write_clip
from exact_network import exact_upscaler
from PIL import Image
from safetensors.torch import load_file

from qsci_plugins.architectures.registry import load_network
from qsci_plugins.recipes.yaml_text import write_yaml

KILLS = 20
EDSR = {"architecture": "edsr", "scale": 2, "settings": {"blocks": 2, "width": 4}}
STEPS = {"batch": 4, "checkpoint_every": 2, "precision": "float32", "steps": 40}


def command(arguments: list[str], said: str) -> None:
    from qsci_plugins.cli import main

    with open(said, "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.exit(main(arguments))


def processes() -> Any:
    """Processes that have what a command imports when they begin, so that kills meet its work."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["qsci_plugins.pipeline.run", "qsci_plugins.nncf", "qsci_plugins.openvino.export"])
    return context


def run(arguments: list[str], folder: Path, moment: float | None = None) -> int:
    """The command's exit code, or -9 where it was killed after `moment` seconds."""
    process = processes().Process(target=command, args=(arguments, str(folder / "said.txt")))
    process.start()
    process.join(600 if moment is None else moment)
    if process.is_alive():
        process.kill()
        process.join()
    code: int = process.exitcode
    assert code in (0, -9), (folder / "said.txt").read_text()
    return code


def prepared(kind: str, folder: Path) -> list[str]:
    """The command without its output."""
    photos = folder / "photos"
    photos.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (40, 48, 3), dtype=np.uint8)
    Image.fromarray(noise).save(photos / "photo.png")
    calibrate = {"count": 4, "patch": 16, "batch": 4}
    recipe: dict[str, Any] = {"version": 1, "model": EDSR, "scheme": {"name": "adabm"}, "calibrate": calibrate}
    recipe |= {"train": STEPS, "export": {"openvino": {"mode": "routed", "tile": [32, 32]}}}
    if kind == "train":
        recipe = {
            "version": 1,
            "model": EDSR,
            "data": [{"path": str(photos)}],
            "train": {**STEPS, "patch": 8, "cpu": True},
        }
    if kind in ("run", "train"):
        (folder / "recipe.yaml").write_text(write_yaml(recipe))
        return [kind, str(folder / "recipe.yaml")]
    if kind == "quantize":
        torch.manual_seed(0)
        network = load_network("edsr", None, 2, blocks=1, width=8)
        torch.save(network.module.state_dict(), folder / "weights.pth")
        return ["quantize", str(folder / "weights.pth")]
    clip = write_clip(folder / "clip.mp4", smooth_frames(300))
    return ["upscale", str(exact_upscaler(folder / "model")), str(clip), "--threads", "1"]


def content(kind: str, output: Path) -> dict[str, Any]:
    """What must be equal."""
    if kind == "upscale":
        return {"clip": output.read_bytes()}
    if kind == "train":
        return {name: tensor.numpy().tobytes() for name, tensor in load_file(output / "weights.safetensors").items()}
    state = torch.load(output / "checkpoint.pt", weights_only=True)["state_dict"]
    tensors = {name: value.numpy().tobytes() for name, value in state.items() if isinstance(value, torch.Tensor)}
    graphs = {file.name: file.read_bytes() for file in (output / "model").glob("*.bin")}
    return tensors | graphs


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
@pytest.mark.parametrize("kind", ["run", "train", "quantize", "upscale"])
def test_twenty_kills_lose_nothing(kind: str, tmp_path: Path) -> None:
    given = prepared(kind, tmp_path)
    whole = tmp_path / ("whole.mp4" if kind == "upscale" else "whole")
    begun = time.monotonic()
    assert run([*given, "-o", str(whole)], tmp_path) == 0
    seconds = time.monotonic() - begun
    expected = content(kind, whole)
    (tmp_path / "out").mkdir()
    output = tmp_path / "out" / whole.name
    moments, kills, resumed = random.Random(0), 0, 0
    while kills < KILLS:
        if run([*given, "-o", str(output)], tmp_path, moments.uniform(0.02, 0.6) * seconds) == 0:
            assert content(kind, output) == expected
            shutil.rmtree(tmp_path / "out")
            (tmp_path / "out").mkdir()
            continue
        kills += 1
        resumed += "goes on" in (tmp_path / "said.txt").read_text() or any(output.parent.glob("*.partial/*.state"))
        # the whole output, which was there a moment before the process's end, or nothing under its name; `quantize` works
        # inside its output, where recipe.yaml comes last
        complete = (output / "recipe.yaml").is_file() if kind == "quantize" else output.exists()
        assert not complete or content(kind, output) == expected
        if complete:
            shutil.rmtree(tmp_path / "out")
            (tmp_path / "out").mkdir()
    assert run([*given, "-o", str(output)], tmp_path) == 0
    assert content(kind, output) == expected
    assert [file.name for file in output.parent.iterdir()] == [output.name]
    print(f"{kind}: {kills} kills within {seconds:.0f} s, {resumed} went on")

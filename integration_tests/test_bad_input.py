"""Whatever a user may give by mistake: one clear line and exit code 2, and never half an output."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

Refused = Callable[..., str]
Limit = Callable[[int], Callable[[], None]]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("scheme.activation_bit=6", "scheme.activation_bit.*'activation_bits'"),
        ("modle.scale=2", "unknown key 'modle'.*'model'"),
        ("calibrate.count=lots", "calibrate.count: should be a valid integer, .*not 'lots'"),
        ("place.targets=[bdoy.*]", r"place.targets: .*'bdoy.\*'.*body"),
        ("place.float=['*']", "place: every layer is left in float"),
        ("model.weights=missing.pth", r"no weights file .*missing\.pth"),
        ("model.weights=builtin:edsr_x44", "builtin:edsr_x44"),
        ("model.architecture=esdr", "unknown architecture 'esdr'.*edsr"),
        ("model.architecture=swinir", "give model.weights"),
        ("model.settings={depth: 3}", "no setting 'depth'"),
        ("model={architecture: python:nowhere:Net}", "importing nowhere failed"),
        ("calibrate.images=[/no/such/folder]", "calibrate.images: /no/such/folder is not a folder"),
        ("calibrate.patch=512", "no photo is large enough"),
        ("evaluate=[{set: Set5}]", "evaluate.0: .*'Set5'.*--data DIR"),
        ("evaluate=[{set: builtin, scale: 4}]", "evaluate.0.scale is 4, but the network's scale is 2"),
        ("export.openvino={overlap: 90}", "overlap is 90, which needs tiles of"),
        ("backend=tensorrt", "backend: should be 'nncf' or 'brevitas', not 'tensorrt'"),
    ],
)
def test_a_wrong_recipe_is_refused_before_any_work(tiny: Path, refused: Refused, wrong: str, message: str) -> None:
    error = refused("run", tiny, "-o", "out", "--set", wrong)
    assert re.search(message, error), error
    assert os.listdir() == ["tiny.yaml"]


def edsr_state(**changes: torch.Tensor) -> dict[str, torch.Tensor]:
    from qsci_plugins import load_network

    return {**load_network("edsr", None, 2, blocks=1, width=8).module.state_dict(), **changes}


class Bomb:
    """What an attacker would put into a checkpoint."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch exploded",)


def write_weights(kind: str) -> None:
    if kind == "nan":
        torch.save(edsr_state(**{"head.0.weight": torch.full((8, 3, 3, 3), float("nan"))}), "w.pth")
    elif kind == "other network":
        torch.save({"conv.weight": torch.zeros(3, 3, 3, 3), "conv.bias": torch.zeros(3)}, "w.pth")
    elif kind == "another edsr":
        torch.save(edsr_state(**{"body.0.body.2.weight": torch.zeros(8, 9, 3, 3)}), "w.pth")
    elif kind == "other scale":
        torch.save(edsr_state(), "w.pth")
    elif kind == "truncated":
        torch.save(edsr_state(), "whole.pth")
        content = Path("whole.pth").read_bytes()
        Path("w.pth").write_bytes(content[: len(content) // 2])
        Path("whole.pth").unlink()
    elif kind == "empty":
        Path("w.pth").touch()
    elif kind == "text":
        Path("w.pth").write_text("these are my weights")
    elif kind == "code":
        torch.save({"state_dict": Bomb()}, "w.pth")
    elif kind == "folder":
        Path("w.pth").mkdir()


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("nan", r"head\.0\.weight holds NaN"),
        ("other network", "holds neither edsr nor any other known network"),
        ("another edsr", r"body\.0\.body\.2\.weight is \(8, 9, 3, 3\)"),
        ("other scale", "for x2, but model.scale is 4"),
        ("truncated", "not a checkpoint, or a damaged one"),
        ("empty", "not a checkpoint, or a damaged one"),
        ("text", "not a checkpoint, or a damaged one"),
        ("code", "is refused: it holds Python code"),
        ("folder", "is a folder"),
    ],
)
def test_wrong_weights_are_refused_before_any_work(tiny: Path, refused: Refused, kind: str, message: str) -> None:
    write_weights(kind)
    scale = 4 if kind == "other scale" else 2
    changes = ["--set", "model.weights=w.pth", "--set", "model.settings={}", "--set", f"model.scale={scale}"]
    error = refused("run", tiny, "-o", "out", *changes)
    assert re.search(message, error), error
    assert sorted(os.listdir()) == ["tiny.yaml", "w.pth"]


def test_sets_that_are_not_there(tiny_run: Path, tiny: Path, refused: Refused) -> None:
    Path("data/Set5/HR").mkdir(parents=True)
    assert "no image in" in refused("evaluate", tiny_run, "--data", "data", "--sets", "Set5")
    assert "nearest is 'Set5'" in refused("evaluate", tiny_run, "--data", "data", "--sets", "Set55")
    assert "no/such does not exist" in refused("evaluate", tiny_run, "--data", "no/such")
    assert "no/such does not exist" in refused("run", tiny, "-o", "out", "--data", "no/such")


@pytest.mark.parametrize("size", [100, 10_000, 60_000])
def test_a_disk_that_takes_no_more(tiny: Path, file_size_limit: Limit, size: int) -> None:
    tiny.write_text(tiny.read_text().replace("width: 8", "width: 24") + "train: {steps: 2, precision: float32}\n")
    command = [sys.executable, "-m", "qsci_plugins", "run", "tiny.yaml", "-o", "out"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, preexec_fn=file_size_limit(size))
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1].startswith("qsci: error: ")
    assert "Traceback" not in done.stderr
    assert not Path("out").exists()
    for file in Path().rglob("*"):
        assert file.suffix in (".yaml", ".state", ".partial"), f"{file} was left behind"


def test_an_existing_output_and_a_folder_that_is_no_output(tiny: Path, refused: Refused) -> None:
    Path("letters").mkdir()
    Path("letters/dear.txt").write_text("x")
    assert "exists; name another, or replace it with --force" in refused("run", tiny, "-o", "letters")
    assert "not the output of a run" in refused("run", tiny, "-o", "letters", "--force")
    assert "is a file" in refused("run", tiny, "-o", "letters/dear.txt", "--force")
    assert sorted(os.listdir()) == ["letters", "tiny.yaml"]

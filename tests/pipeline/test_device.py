"""Where a run computes: said in recipes and options, named by metrics.json, no part of a run's identity; and its memory."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import qsci_plugins
from qsci_plugins.cli import main
from qsci_plugins.data import write_image
from qsci_plugins.errors import UserError
from qsci_plugins.pipeline.metrics import Journal
from qsci_plugins.pipeline.networks import device_of
from qsci_plugins.recipes.reading import make_recipe, recipe_text

QUANTIZE = {
    "version": 1,
    "model": {"architecture": "edsr", "scale": 2, "settings": {"blocks": 1, "width": 4}},
    "scheme": {"name": "adabm", "weight_bits": 4, "activation_bits": 4},
    "calibrate": {"count": 2, "patch": 16, "batch": 2},
    "train": {"steps": 2},
    "export": {"openvino": {"mode": "none"}},
}


class Hungry(nn.Module):
    """A network x2 that finds no memory for its forward of a number; counts all of this process."""

    calls = 0
    fails_at = -1

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.PixelShuffle(2))

    def forward(self, x: Tensor) -> Tensor:
        Hungry.calls += 1
        if Hungry.calls == Hungry.fails_at:
            raise torch.OutOfMemoryError(
                "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of ..."
            )
        output: Tensor = self.body(x)
        return output


def hungry() -> nn.Module:
    torch.manual_seed(0)
    return Hungry()


@pytest.fixture
def training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe that trains the hungry network."""
    monkeypatch.setattr(Hungry, "calls", 0)
    monkeypatch.setattr(Hungry, "fails_at", -1)
    folder = tmp_path / "photos"
    folder.mkdir()
    write_image(folder / "a.png", np.random.default_rng(0).integers(0, 256, (40, 48, 3), dtype=np.uint8))
    (tmp_path / "train.yaml").write_text(
        f"version: 1\nmodel: {{architecture: 'python:{__name__}:hungry', scale: 2, value_range: 255.0}}\n"
        f"data: [{{path: {folder}}}]\n"
        "train: {steps: 6, batch: 2, patch: 8, checkpoint_every: 100, precision: float32}\n"
    )
    return tmp_path / "train.yaml"


def test_a_recipe_says_where_and_its_text_for_a_run_does_not() -> None:
    there, here = (make_recipe({**QUANTIZE, "device": device}) for device in ("cuda:1", "cpu"))
    assert (there.device, make_recipe(QUANTIZE).device) == ("cuda:1", "auto")
    assert recipe_text(there) == recipe_text(here) == recipe_text(make_recipe(QUANTIZE))
    with pytest.raises(UserError, match=r"device: .*'gpu'"):
        make_recipe({**QUANTIZE, "device": "gpu"})


def test_a_written_recipe_keeps_its_device(tmp_path: Path) -> None:
    recipe = make_recipe({**QUANTIZE, "device": "cuda:1"})
    qsci_plugins.write_recipe(recipe, tmp_path / "recipe.yaml")
    assert qsci_plugins.read_recipe(tmp_path / "recipe.yaml") == recipe


def test_the_older_key_means_the_cpu_and_bears_no_other_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    train = {"schedule": "cadyq", "data": [{"path": "photos"}], "cpu": True}
    recipe = make_recipe({**QUANTIZE, "scheme": {"name": "cadyq"}, "train": train})
    assert device_of(recipe) == "cpu"
    with pytest.raises(UserError, match=r"device is cuda, but train\.cpu says"):
        device_of(recipe.model_copy(update={"device": "cuda"}))
    assert device_of(make_recipe(QUANTIZE)) == "cuda:0"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize(
    "command",
    [
        ["run", "sr/edsr_x4_adabm_w4a4", "-o", "out"],
        ["train", "float/edsr_x4", "-o", "out"],
        ["benchmark", "sr/edsr_x4_adabm_w4a4", "-o", "out"],
        ["sweep", "sr/edsr_x4_adabm_w4a4", "--key", "seed=1,2", "-o", "out"],
        ["cost", "--schemes", "adabm"],
    ],
)
def test_without_a_gpu_commands_refuse_one_in_a_line(
    command: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*command, "--device", "cuda"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("qsci: error: device cuda: torch ")
    assert "use auto or cpu" in line
    assert not list(tmp_path.iterdir())


def test_a_word_that_is_no_device_is_refused_by_its_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "sr/edsr_x4_adabm_w4a4", "-o", "out", "--device", "gpu"]) == 2
    assert "--device: should be auto, cpu, cuda or cuda:N, not 'gpu'" in capsys.readouterr().err


def test_metrics_and_evaluation_say_where_every_step_ran(tmp_path: Path) -> None:
    output = qsci_plugins.run(make_recipe(QUANTIZE), tmp_path / "run", device="cpu")
    metrics = json.loads((output / "metrics.json").read_text())
    expected = {"calibration": ["cpu"], "fine_tuning": ["cpu"], "measuring": ["cpu"]}
    assert metrics["machine"]["devices"] == expected
    assert "device" not in (output / "recipe.yaml").read_text()


def test_a_step_that_went_on_elsewhere_names_both_devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Model 7")
    for device in ("cuda:0", "cpu"):
        journal = Journal(tmp_path, device)
        with journal.timed("training"):
            pass
    assert journal.devices == {"training": ["cuda:0 (Model 7)", "cpu"]}
    assert Journal(tmp_path).seconds.keys() == {"training"}


def test_out_of_memory_in_training_is_one_error_and_the_steps_done_are_kept(
    training: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, halves = training.with_name("whole"), training.with_name("halves")
    assert main(["train", str(training), "-o", str(whole), "--device", "cpu"]) == 0
    capsys.readouterr()
    monkeypatch.setattr(Hungry, "fails_at", Hungry.calls + 4)
    assert main(["train", str(training), "-o", str(halves)]) == 2
    (line,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("qsci:"))
    assert "not enough memory for this (CUDA out of memory. Tried to allocate 2.00 GiB); use smaller batches" in line
    assert "--device cpu" in line
    assert "the steps done are kept" in line
    state = torch.load(training.with_name("halves.partial") / "training.state", weights_only=True)
    assert state["step"] == 3
    assert main(["train", str(training), "-o", str(halves), "--device", "cpu"]) == 0
    expected, found = (load_file(folder / "weights.safetensors") for folder in (whole, halves))
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_out_of_memory_before_a_step_is_done_leaves_nothing(
    training: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Hungry, "fails_at", 1)
    assert main(["train", str(training), "-o", str(training.with_name("out"))]) == 2
    assert "kept" not in capsys.readouterr().err
    assert {path.name for path in training.parent.iterdir()} == {"photos", "train.yaml"}

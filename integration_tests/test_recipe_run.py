from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from noted import StopAt
from PIL import Image

import qsci_plugins
from qsci_plugins.cli import main
from qsci_plugins.comparing.bench import bench_here
from qsci_plugins.comparing.settings import BenchSettings
from qsci_plugins.recipes.reading import make_recipe, read_recipe

TINY = """# a network so small that a run takes seconds
version: 1
model: {architecture: edsr, scale: 2, settings: {blocks: 2, width: 8}}
scheme: {name: adabm, weight_bits: 4, activation_bits: 4}
place: {targets: ["body.*"], eight_bit: ["head.*", "tail.*"]}
calibrate: {count: 6, patch: 24, batch: 3}
train: {steps: 6, checkpoint_every: 2, precision: float32}
evaluate: [{set: builtin}]
export: {openvino: {mode: routed, tile: [64, 80]}}
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("recipe") / "tiny.yaml"
    file.write_text(TINY)
    return file


@pytest.fixture(scope="module")
def finished(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of one whole run through the command line."""
    output = tmp_path_factory.mktemp("runs") / "demo"
    assert main(["run", str(recipe), "--output", str(output)]) == 0
    return output


def test_everything_is_in_the_output_and_nothing_beside_it(finished: Path, recipe: Path) -> None:
    names = {file.name for file in finished.iterdir()}
    pictures = {f"{kind}_{photo}.png" for kind in ("before_after", "bits") for photo in ("chelsea", "coffee", "flower")}
    assert (
        names
        == {"metrics.json", "summary.md", "recipe.yaml", "checkpoint.pt", "model", "report.html", "pictures"} | pictures
    )
    assert [file.name for file in finished.parent.iterdir()] == ["demo"]
    assert [file.name for file in recipe.parent.iterdir()] == ["tiny.yaml"]
    for picture in pictures:
        Image.open(finished / picture).verify()
        assert f"({picture})" in (finished / "summary.md").read_text()


def test_metrics_say_all_that_was_measured(finished: Path) -> None:
    metrics = json.loads((finished / "metrics.json").read_text())
    row = metrics["sets"]["builtin"]
    assert metrics["network"]["scale"] == 2
    for form in ("float", "torch", "openvino"):
        assert set(row[form]) == {"psnr", "ssim", "fab", "pieces"}
        assert set(row[form]["pieces"]) == {"chelsea", "coffee", "flower"}
    assert row["float"]["fab"] == 32
    assert 2 <= row["torch"]["fab"] <= 6
    assert abs(row["torch"]["psnr"] - row["openvino"]["psnr"]) < 0.1
    assert set(metrics["seconds"]) == {"calibration", "fine_tuning", "export"}
    operations = metrics["operations"]
    assert operations["quantized"]["macs"] == operations["float"]["macs"]
    for name in ("cadyq_bitops", "qsci_ops", "weight_activation_bitops"):
        assert operations["quantized"][name] < 0.5 * operations["float"][name]
    rows = [row["name"] for row in metrics["latency"]["rows"]]
    assert rows[0] == "fp32"
    assert rows[-2:] == ["nncf_int8", "ours"]
    assert metrics["bits"]["head.0"] == {"weight": 8, "activation": 8}
    assert metrics["machine"]["cores"] >= 1


def test_the_resolved_recipe_is_the_same_recipe(finished: Path, recipe: Path) -> None:
    assert read_recipe(finished / "recipe.yaml") == read_recipe(recipe)


def test_evaluating_a_run_gives_its_own_numbers_again(finished: Path) -> None:
    metrics = json.loads((finished / "metrics.json").read_text())
    again = qsci_plugins.evaluate(finished)
    for form in ("float", "torch", "openvino"):
        for number in ("psnr", "ssim", "fab"):
            assert again["builtin"][form][number] == pytest.approx(metrics["sets"]["builtin"][form][number], rel=1e-6)


def test_commands_that_take_a_run_take_its_model_folder_too(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (50, 30), (200, 30, 60)).save(tmp_path / "photo.png")
    for index, model in enumerate((finished, finished / "model")):
        target = tmp_path / f"big{index}.png"
        assert main(["upscale", str(model), str(tmp_path / "photo.png"), "-o", str(target)]) == 0
        assert Image.open(target).size == (100, 60)
        assert main(["evaluate", str(model), "--format", "json"]) == 0
        out = capsys.readouterr().out
        assert set(json.loads(out[out.index("{") :])["builtin"]) >= {"openvino"}


@pytest.mark.slow
def test_a_bench_takes_a_run_and_its_model_folder(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", str(finished), str(finished / "model"), "--repeats", "2"]) == 0
    table = capsys.readouterr().out
    assert table.count("| ours  ") == 2
    for row in (
        "OpenVINO fp32",
        "NNCF default INT8",
        "static INT8, same placement",
        "torch eager",
        "ours, with routing",
    ):
        assert row in table


def test_a_bench_goes_on_where_nncf_and_onnxruntime_do_not_take_the_network(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("no such operation")

    monkeypatch.setattr("nncf.quantize", refuse)
    monkeypatch.setattr("qsci_plugins.brevitas.onnx.export_qcdq", refuse)
    settings = BenchSettings(models=[finished], repeats=1, threads=1)
    # in this process, whose NNCF refuses
    table = bench_here(finished, settings, StopAt("never", 0), lambda table, titles: None)
    rows = {row["name"]: row for row in table["rows"]}
    failed = {name: row["failed"] for name, row in rows.items() if "failed" in row}
    assert failed == dict.fromkeys(("nncf_int8", "onnxruntime"), "RuntimeError: no such operation")
    for name in ("fp32", "static_int8", "torch", "ours", "routed"):
        assert rows[name]["median_ms"] > 0
        assert rows[name]["psnr"]["builtin"] > 0


def test_an_output_that_exists_is_replaced_only_with_force(recipe: Path, tmp_path: Path) -> None:
    command = ["run", str(recipe), "-o", str(tmp_path / "out"), "--set", "export.openvino.mode=none"]
    command += ["--set", "train=null", "--set", "evaluate=[]"]
    assert main(command) == 0
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "out").iterdir()}
    assert main(command) == 2
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "out").iterdir()} == before
    assert main([*command, "--force"]) == 0
    assert {file.name for file in (tmp_path / "out").iterdir()} == {file.name for file in before}
    assert (tmp_path / "out" / "metrics.json").stat().st_mtime_ns not in before.values()


@pytest.mark.parametrize(("title", "step"), [("fine-tuning", 3), ("builtin: torch", 1)])
def test_a_run_that_was_stopped_ends_as_one_that_was_not(
    finished: Path, recipe: Path, tmp_path: Path, title: str, step: int
) -> None:
    wanted = read_recipe(recipe, ["export.openvino.mode=none"])
    with pytest.raises(KeyboardInterrupt):
        qsci_plugins.run(wanted, tmp_path / "out", progress=StopAt(title, step))
    assert not (tmp_path / "out").exists()
    with pytest.raises(qsci_plugins.UserError, match="another recipe"):
        qsci_plugins.run(recipe, tmp_path / "out", overrides=["seed=7"])
    progress = StopAt("never", 0)
    qsci_plugins.run(wanted, tmp_path / "out", progress=progress)
    assert "calibration: done before the interruption" in progress.notes
    assert [file.name for file in tmp_path.iterdir()] == ["out"]
    first, second = (
        torch.load(folder / "checkpoint.pt", weights_only=True)["state_dict"] for folder in (finished, tmp_path / "out")
    )
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["seconds"]["calibration"] > 0


def test_ctrl_c_in_the_terminal(recipe: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "qsci_plugins", "run", str(recipe), "-o", str(tmp_path / "out")]
    command += ["--set", "train.steps=1000000"]
    # a shell that starts the tests in the background has them ignore Ctrl-C, and their children too
    heard = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    finally:
        signal.signal(signal.SIGINT, heard)
    state = tmp_path / "out.partial" / "finetune.state"
    deadline = time.monotonic() + 120
    while not state.is_file() and time.monotonic() < deadline:
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert err.splitlines()[-1].startswith("qsci: stopped after step ")
    assert out == ""
    assert {file.name for file in tmp_path.iterdir()} == {"out.partial"}
    assert torch.load(state, weights_only=True)["step"] >= 2


OWN_NETWORK = """
from torch import nn

class Net(nn.Module):
    scale, value_range = 2, 1.0
    def __init__(self, width):
        super().__init__()
        self.first = nn.Conv2d(3, width, 3, padding=1)
        self.second = nn.Conv2d(width, 12, 3, padding=1)
        self.up = nn.PixelShuffle(2)
    def forward(self, x):
        return self.up(self.second(self.first(x).relu()))
"""


@pytest.mark.parametrize("backend", ["nncf", "brevitas"])
def test_a_network_of_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str) -> None:
    (tmp_path / f"own_{backend}.py").write_text(OWN_NETWORK)
    monkeypatch.chdir(tmp_path)
    mapping = {
        "version": 1,
        "model": {"architecture": f"python:own_{backend}:Net", "settings": {"width": 8}},
        "backend": backend,
        "scheme": {"name": "adabm", "weight_bits": 8, "activation_bits": 6},
        "calibrate": {"count": 4, "patch": 16, "batch": 4},
        "evaluate": [{"set": "builtin"}],
        "export": {"openvino": {"mode": "none"}},
    }
    output = qsci_plugins.run(make_recipe(mapping), "out")
    row = json.loads((output / "metrics.json").read_text())["sets"]["builtin"]
    assert abs(row["float"]["psnr"] - row["torch"]["psnr"]) < 0.3
    assert "openvino" not in row

"""`qsci quantize` from a file to a table: its numbers are those of the run, which its recipe makes again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import qsci_plugins
from qsci_plugins.architectures.registry import load_network
from qsci_plugins.cli import main
from qsci_plugins.data import write_image
from qsci_plugins.evaluation.estimates import expected_loss
from qsci_plugins.pipeline import run as pipeline


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "mine.pth"
    torch.save(load_network("edsr", None, 2, seed=1, blocks=1, width=8).module.state_dict(), file)
    return file


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Four inputs of 80x96 pixels, smooth and busy parts in each."""
    (tmp_path / "photos").mkdir()
    generator = np.random.default_rng(0)
    for index in range(4):
        ramp = np.linspace(0, 200, 96)[None, :, None] + np.zeros((80, 96, 3))
        ramp[:, 48:] += generator.integers(0, 55, (80, 48, 3))
        write_image(tmp_path / "photos" / f"{index}.png", np.roll(ramp, 20 * index, 1).astype(np.uint8))
    return tmp_path / "photos"


def tensors(run: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(run / "checkpoint.pt", weights_only=True)["state_dict"]
    return state


def test_from_a_file_to_a_table_and_by_its_recipe_again(weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["quantize", str(weights), "-o", "out"]) == 0
    text = capsys.readouterr().out
    result: dict[str, Any] = json.loads(Path("out/quantize.json").read_text())
    assert not Path("out/.trials").exists()
    assert (result["architecture"], result["bits"], result["layers"]) == ("edsr", 8, 6)
    assert result["float"] == dict.fromkeys(("sub_mean", "add_mean"), "only scales and shifts the colours")
    assert 0.9 < result["macs_in_integers"] < 1.0

    measured = qsci_plugins.evaluate("out", sets=["./out/float_output", "builtin"])
    own, builtin = measured["float_output"], measured["builtin"]
    assert (own["float"]["psnr"] or 999) > 200  # equal but for the rounding of lumas
    assert result["psnr"] == own["openvino"]["psnr"] > 35
    assert result["least_psnr"] == min(piece["psnr"] for piece in own["openvino"]["pieces"].values())
    assert result["loss"] == pytest.approx(expected_loss(result["psnr"]))
    assert result["sets"] == {"builtin": {"float": builtin["float"]["psnr"], "quantized": builtin["openvino"]["psnr"]}}
    rows = {
        row["name"]: row["median_ms"] for row in json.loads(Path("out/metrics.json").read_text())["latency"]["rows"]
    }
    assert (result["latency"]["ours"], result["latency"]["fp32"]) == (rows["ours"], rows["fp32"])
    assert f"{result['psnr']:.2f} dB" in text
    assert f"{rows['ours'] / rows['fp32']:.2f} of fp32" in text
    assert "ours" in Path("out/summary.md").read_text()

    assert main(["quantize", str(weights), "-o", "out"]) == 2
    assert "the output folder out exists" in capsys.readouterr().err
    assert main(["run", "out/recipe.yaml", "-o", "again"]) == 0
    first, second = tensors(Path("out")), tensors(Path("again"))
    assert first.keys() == second.keys()
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def test_auto_bits_keep_the_loss_and_go_on_after_an_interruption(
    weights: Path, photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["quantize", str(weights), "-o", "out", "--images", str(photos), "--backend", "brevitas"]
    command += ["--bits", "auto", "--max-loss", "0.3"]

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "_export", stop)
        assert main(command) == 130
    (partial,) = Path("out/.trials").glob("*.partial")
    assert (partial / "checkpoint.pt").is_file()
    capsys.readouterr()
    assert main(command) == 0
    assert capsys.readouterr().err.count("calibration: done before the interruption") == 1
    result = json.loads(Path("out/quantize.json").read_text())
    assert result["trials"][0].startswith("W8A8: loss ")
    assert len(result["trials"]) > 1
    assert result["loss"] <= 0.3
    assert result["loss"] == pytest.approx(expected_loss(result["psnr"]))
    recipe = qsci_plugins.read_recipe("out/recipe.yaml")
    assert isinstance(recipe, qsci_plugins.Recipe)
    assert [Path(image).stem for image in recipe.calibrate.images] == ["1", "3"]
    assert recipe.scheme["weight_bits"] == result["bits"]

    (Path("out") / "old.txt").touch()
    assert main(["quantize", str(weights), "-o", "out", "--images", str(photos), "--bits", "4", "--force"]) == 0
    assert json.loads(Path("out/quantize.json").read_text())["bits"] == 4
    assert not Path("out/old.txt").exists()

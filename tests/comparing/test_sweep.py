from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from qsci_plugins.cli import main
from qsci_plugins.commands.sweep import sweep
from qsci_plugins.comparing.sweep import combinations, read_values
from qsci_plugins.data import write_image
from qsci_plugins.errors import UserError

TINY = """version: 1
model: {architecture: edsr, scale: 2, settings: {blocks: 1, width: 8}}
scheme: {name: adabm, weight_bits: 4, activation_bits: 4}
place: {targets: ["body.*"], eight_bit: ["head.*", "tail.*"]}
calibrate: {count: 4, patch: 24, batch: 4}
export: {openvino: {mode: none}}
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    (folder / "Set5").mkdir()
    blocks = np.random.default_rng(0).integers(0, 256, (6, 7, 3), np.uint8)
    write_image(folder / "Set5/a.png", blocks.repeat(10, 0).repeat(10, 1))
    return folder


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("recipe") / "tiny.yaml"
    file.write_text(TINY)
    return file


def test_values_are_yaml() -> None:
    values = read_values(
        ["scheme.activation_bits=4,6,8", "train=null,{steps: 2, batch: 1}", "a.b=x, 1e-4 ,[c, d],true"]
    )
    assert values["scheme.activation_bits"] == [4, 6, 8]
    assert values["train"] == [None, {"steps": 2, "batch": 1}]
    assert values["a.b"] == ["x", 1e-4, ["c", "d"], True]
    for wrong in ("scheme.bits", "=4", "scheme.bits=", "a=[1"):
        with pytest.raises(UserError, match="--key"):
            read_values([wrong])
    with pytest.raises(UserError, match="comes twice"):
        read_values(["a=1", "a=2"])


def test_every_combination_or_one_change_at_a_time() -> None:
    values = {"a": [1, 2], "b": [True, None]}
    product = [{"a": 1, "b": True}, {"a": 1, "b": None}, {"a": 2, "b": True}, {"a": 2, "b": None}]
    assert combinations(values) == product
    assert combinations(values, one_at_a_time=True) == [{}, {"a": 1}, {"a": 2}, {"b": True}, {"b": None}]


def test_a_sweep_from_the_command_line_leaves_a_table_and_a_picture(
    tiny: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "sweep"
    keys = ["--key", "scheme.activation_bits=4,8", "--key", "scheme.weight_bits=8,2"]
    command = ["sweep", str(tiny), *keys, "--data", str(data), "--jobs", "1", "-o", str(output)]
    assert main(command) == 0
    assert "4: activation_bits=8, weight_bits=2" in capsys.readouterr().out
    result = json.loads((output / "sweep.json").read_text())
    points = [(point["settings"], point["rows"]["torch"]["sets"]["Set5"]) for point in result["points"]]
    fabs = [scores["fab"] for _, scores in points]
    assert max(fabs[:2]) < min(fabs[2:])
    wide, narrow = points[2][1], points[3][1]
    assert narrow["weight_activation_bitops"] < wide["weight_activation_bitops"]
    assert narrow["psnr"] != wide["psnr"]
    rows = list(csv.DictReader((output / "sweep.csv").read_text().splitlines()))
    assert [(row["scheme.activation_bits"], row["scheme.weight_bits"]) for row in rows] == [
        ("", ""), ("4", "8"), ("4", "2"), ("8", "8"), ("8", "2"),
    ]  # fmt: skip
    assert (output / "sweep.png").stat().st_size > 1000
    monkeypatch.setattr("qsci_plugins.comparing.subjects.run_recipe", None)  # a second call runs and measures nothing
    monkeypatch.setattr("qsci_plugins.comparing.benchmark.measure_piece", None)
    assert main(command) == 0
    assert json.loads((output / "sweep.json").read_text()) == result


def test_an_ablation_has_the_recipe_itself_first_and_equal_settings_once(
    tiny: Path, data: Path, tmp_path: Path
) -> None:
    values = {"scheme.clipping": [0.0], "scheme.activation_bits": [4], "calibrate.batch": [2]}
    result = sweep(tiny, values, tmp_path, one_at_a_time=True, data=data, jobs=1)
    assert [point["title"] for point in result["points"]] == ["the recipe as it is", "clipping=0.0", "batch=2"]
    assert all("torch" in point["rows"] for point in result["points"])


def test_mistakes_come_before_the_first_run(tiny: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="activation_bitz"):
        sweep(tiny, {"scheme.activation_bitz": [4]}, tmp_path / "out", data=data)
    with pytest.raises(UserError, match="activation_bits"):
        sweep(tiny, {"scheme.activation_bits": [4, 40]}, tmp_path / "out", data=data)
    with pytest.raises(UserError, match="one scale"):
        sweep(tiny, {"model.scale": [2, 4]}, tmp_path / "out", data=data)
    assert not (tmp_path / "out").exists()

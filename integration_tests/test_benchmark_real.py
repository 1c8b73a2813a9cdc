"""`qsci benchmark` on Set5: the known PSNR, whether LR images are given or made."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from qsci_plugins.cli import main

_DATA = Path(os.environ.get("QSCI_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))

RECIPE = """version: 1
model: {weights: WEIGHTS, scale: 2}
scheme: {name: adabm, weight_bits: 8, activation_bits: 8, image_mapping: false, layer_mapping: false}
place: {targets: ["body.*"], eight_bit: ["head.*", "tail.*"]}
calibrate: {count: 4, patch: 48, batch: 4}
export: {openvino: {mode: none}}
"""


@pytest.mark.slow
@pytest.mark.skipif(not _DATA.is_dir(), reason=f"no shared data at {_DATA}; set QSCI_DATA")
def test_a_folder_of_hr_images_gives_what_the_edsr_layout_gives(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "own.yaml").write_text(RECIPE.replace("WEIGHTS", str(_DATA / "weights" / "edsr8_x2.pt")))
    images = tmp_path / "only_hr"
    images.mkdir()
    for file in (_DATA / "sr/benchmark/Set5/HR").iterdir():
        (images / file.name).symlink_to(file)
    command = ["benchmark", str(tmp_path / "own.yaml"), "--data", str(_DATA), "--sets", "Set5", str(images)]
    assert main([*command, "--jobs", "1", "-o", str(tmp_path / "out"), "--format", "csv"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1 + 2 * 2
    rows = json.loads((tmp_path / "out/benchmark.json").read_text())["rows"]
    for row in rows:
        assert row["sets"]["Set5"] == row["sets"]["only_hr"]
    plain, quantized = (row["sets"]["Set5"]["psnr"] for row in rows)
    assert plain == pytest.approx(37.80, abs=0.006)
    assert quantized == pytest.approx(plain, abs=0.2)

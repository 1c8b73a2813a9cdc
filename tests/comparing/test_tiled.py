"""What `qsci bench --tiled` measures: the same image in tiles and in one piece."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from openvino_networks import EVERYWHERE, Bound, calibrated_edsr, plain_apply
from plain import calibrate

from qsci_plugins.cli import main
from qsci_plugins.comparing.tiled import tiled_latency
from qsci_plugins.errors import UserError
from qsci_plugins.openvino.export import export_upscaler
from qsci_plugins.report.bench_tables import tiled_table


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    stock, network = calibrated_edsr({"weight_bits": 8, "activation_bits": 8}, EVERYWHERE)
    folder = tmp_path_factory.mktemp("run") / "model"
    export_upscaler(network, stock, folder, tile=(32, 40), scale=2, overlap=8, mode="static")
    return folder


def test_the_command_compares_tiles_with_one_piece(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["bench", str(model.parent), "--tiled", "90x75", "--repeats", "2", "--threads", "1", "--format", "json"]
    assert main(command) == 0
    (compared,) = json.loads(capsys.readouterr().out)["models"]
    assert compared["size"] == [75, 90]
    untiled, fitted, exported = compared["rows"]
    assert (untiled["tile"], untiled["tiles"], untiled["computed"], untiled["ratio"]) == ([75, 90], 1, 1.0, 1.0)
    assert fitted["tiles"] == 1
    assert exported["tile"] == [32, 40]
    assert exported["computed"] == pytest.approx(exported["tiles"] * 32 * 40 / (75 * 90), abs=1e-4)
    for row in compared["rows"]:
        assert 0 < row["fast_ms"] <= row["median_ms"] <= row["slowest_ms"]
        assert row["ratio"] == pytest.approx(row["median_ms"] / untiled["median_ms"], rel=0.02)
        assert row["peak_mib"] is None or row["peak_mib"] > 20


def test_the_command_prints_a_table_and_takes_no_sets(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", str(model), "--tiled", "40x32", "--repeats", "1", "--threads", "1"]) == 0
    assert "one 40x32 image, 1 threads, 1 runs" in capsys.readouterr().out
    assert main(["bench", str(model), "--tiled", "40x32", "--sets", "Set5"]) == 2
    assert "--tiled measures time alone" in capsys.readouterr().err


def test_a_network_that_never_sees_a_whole_image_is_refused(tmp_path: Path) -> None:
    stock = Bound((24, 24))
    network = plain_apply(stock, {"name": "adabm", "image_mapping": False}, EVERYWHERE, 255.0)
    calibrate(network, [torch.rand(2, 3, 24, 24) * 255])
    export_upscaler(network, stock, tmp_path / "m", tile=(24, 24), scale=1, overlap=1, mode="static")
    with pytest.raises(UserError, match="exported size alone"):
        tiled_latency(tmp_path / "m", (60, 50), repeats=1, threads=1)


def test_smooth_tiles_skip_blocks_and_one_piece_does_not(tmp_path: Path) -> None:
    settings = {"weight_bits": 8, "activation_bits": 8, "image_mapping": False, "skip_share": 1.0}
    stock, network = calibrated_edsr(settings, EVERYWHERE)
    export_upscaler(network, stock, tmp_path / "m", tile=(32, 40), scale=2, overlap=4)
    size = (427, 640)
    untiled, fitted, exported = tiled_latency(tmp_path / "m", size, repeats=1, threads=1)
    assert (untiled["tiles"], untiled["skipping"]) == (1, 0)
    for row in (fitted, exported):
        assert row["tile"][0] * row["tile"][1] <= 32 * 40
        assert 0.3 * row["tiles"] < row["skipping"] < row["tiles"], "the background of the photo is blurred"
    table = tiled_table({"model": "m", "size": size, "threads": 1, "repeats": 1, "rows": [untiled, fitted, exported]})
    assert f"{fitted['tiles']} of {fitted['tile'][1]}x{fitted['tile'][0]}, {fitted['skipping']} skip blocks" in table

"""`qsci evaluate`, `benchmark` and `sweep` for networks that reconstruct video."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from noted import Notes
from tiny_video import TINY_VIDEO, write_scene

from qsci_plugins.cli import main
from qsci_plugins.commands.benchmark import benchmark
from qsci_plugins.commands.evaluate import evaluate
from qsci_plugins.commands.sweep import sweep
from qsci_plugins.comparing import forms
from qsci_plugins.errors import UserError
from qsci_plugins.report.benchmark_tables import FORMATS, benchmark_text


def metrics_of(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "metrics.json").read_text())
    return found


def test_a_run_evaluated_again_has_the_numbers_of_its_metrics(
    video_run: Path, video_scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = metrics_of(video_run)["sets"]
    assert list(expected["scenes"]) == ["float", "torch", "openvino"]
    again = evaluate(video_run)
    for form, numbers in expected["scenes"].items():
        found = again["scenes"][form]
        assert found["psnr"] == pytest.approx(numbers["psnr"], abs=1e-3)
        assert found["ssim"] == pytest.approx(numbers["ssim"], abs=1e-4)
        assert len(found["pieces"]["moving"]["measurements"]) == 2
    others = shutil.copytree(video_scenes, tmp_path / "others")
    capsys.readouterr()
    assert main(["evaluate", str(video_run), "--data", str(tmp_path), "--sets", "scenes", str(others)]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for name in ("scenes", "others"):
        assert f"| {name} moving: float | {expected['scenes']['float']['psnr']:.2f} |" in text
    assert "PSNR-Y" not in text


def test_a_model_folder_alone_is_evaluated(video_run: Path, video_scenes: Path) -> None:
    expected = metrics_of(video_run)["sets"]["scenes"]["openvino"]["psnr"]
    found = evaluate(video_run / "model", data=video_scenes)
    assert list(found["scenes"]) == ["openvino"]
    assert found["scenes"]["openvino"]["psnr"] == pytest.approx(expected, abs=1e-3)


@pytest.fixture(scope="module")
def output(video_run: Path, video_scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished benchmark."""
    folder = tmp_path_factory.mktemp("benchmark")
    benchmark([video_run], folder, data=video_scenes, jobs=1, baseline=True)
    return folder


def test_all_forms_side_by_side(output: Path, video_run: Path) -> None:
    result = json.loads((output / "benchmark.json").read_text())
    rows = {row["form"]: row for row in result["rows"]}
    assert list(rows) == ["float", "nncf", "torch", "openvino"]
    metrics = metrics_of(video_run)
    for form, numbers in metrics["sets"]["scenes"].items():
        found = rows[form]["sets"]["scenes"]
        assert found["psnr"] == pytest.approx(numbers["psnr"], abs=1e-3)
        assert found["pieces"]["moving"]["ssim"] == pytest.approx(numbers["ssim"], abs=1e-4)
    levels = [round(row["sets"]["scenes"]["psnr"], 2) for row in rows.values()]
    assert len(set(levels[:3])) == 3
    assert [row["sets"]["scenes"]["fab"] for row in rows.values()] == [32.0, 8.0, 4.0, None]
    for form, kind in (("float", "float"), ("torch", "quantized")):
        counts = metrics["operations"][kind]["weight_activation_bitops"]
        assert rows[form]["sets"]["scenes"]["weight_activation_bitops"] == pytest.approx(counts, rel=1e-6)
    assert rows["float"]["network"] == "efficientsci T3"
    for format_ in FORMATS:
        assert "scenes" in benchmark_text(result, format_)


def test_a_killed_benchmark_goes_on(
    output: Path, video_run: Path, video_scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenes = shutil.copytree(video_scenes, tmp_path / "scenes")
    write_scene(scenes / "other.mat", 3, seed=5)
    measured = []

    def interrupted(work: forms.PieceWork) -> Any:
        if len(measured) == 3:
            raise KeyboardInterrupt
        measured.append(work.form.kind)
        return forms.measure_piece(work)

    with monkeypatch.context() as patched:
        patched.setattr("qsci_plugins.comparing.benchmark.measure_piece", interrupted)
        with pytest.raises(KeyboardInterrupt, match="the same command goes on"):
            benchmark([video_run], tmp_path / "out", data=scenes, jobs=1)
    notes = Notes()
    resumed = benchmark([video_run], tmp_path / "out", data=scenes, jobs=1, progress=notes)
    assert notes.notes[0] == "3 of 6 pieces were measured before"
    lines = (tmp_path / "out" / "measurements.jsonl").read_text().splitlines()
    assert [json.loads(line)["kind"] for line in lines[:3]] == measured == ["float", "float", "torch"]
    assert len(lines) == 6
    whole = {row["form"]: row for row in json.loads((output / "benchmark.json").read_text())["rows"]}
    for row in resumed["rows"]:
        pieces = row["sets"]["scenes"]["pieces"]
        assert pieces["moving"] == whole[row["form"]]["sets"]["scenes"]["pieces"]["moving"]
        assert list(pieces) == ["moving", "other"]


def test_a_sweep_of_a_video_recipe(video_scenes: Path, tmp_path: Path) -> None:
    recipe = {**TINY_VIDEO, "export": {"openvino": {"mode": "none", "tile": [24, 24], "overlap": 1}}}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(recipe))
    bits = {"scheme.activation_bits": [4, 8]}
    result = sweep(tmp_path / "tiny.yaml", bits, tmp_path / "out", data=video_scenes, jobs=1)
    assert [point["rows"]["torch"]["sets"]["scenes"]["fab"] for point in result["points"]] == [4.0, 8.0]
    rows = list(csv.DictReader((tmp_path / "out" / "sweep.csv").read_text().splitlines()))
    assert [row["scheme.activation_bits"] for row in rows] == ["", "4", "8"]
    assert (tmp_path / "out" / "sweep.png").stat().st_size > 1000


def test_mistakes_come_before_any_work(video_run: Path, video_scenes: Path, tmp_path: Path) -> None:
    write_scene(tmp_path / "short.mat", 2)
    for options, message in (
        ({"sets": ["Set5"]}, "there is no set 'Set5'"),
        ({"data": tmp_path}, "short.mat.*fewer than the 3 of one measurement"),
        ({"data": tmp_path / "nowhere"}, "does not exist"),
    ):
        with pytest.raises(UserError, match=message):
            benchmark([video_run], tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()
    assert video_scenes.is_dir()

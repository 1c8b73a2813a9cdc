from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from noted import Notes

from qsci_plugins.commands.benchmark import benchmark
from qsci_plugins.commands.evaluate import evaluate
from qsci_plugins.comparing import forms
from qsci_plugins.data import bicubic_down, write_image
from qsci_plugins.errors import UserError

TINY = """version: 1
model: {architecture: edsr, scale: 2, settings: {blocks: 1, width: 8}}
scheme: {name: adabm, weight_bits: 4, activation_bits: 4}
place: {targets: ["body.*"], eight_bit: ["head.*", "tail.*"]}
calibrate: {count: 4, patch: 24, batch: 4}
evaluate: [{set: builtin}]
export: {openvino: {mode: static, tile: [32, 40]}}
"""


def photo(seed: int, height: int = 60, width: int = 70) -> np.ndarray:
    smooth = np.random.default_rng(seed).integers(0, 256, (height // 10, width // 10, 3), np.uint8)
    return smooth.repeat(10, 0).repeat(10, 1)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One set in EDSR's layout, and one that is just a folder of HR images."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "Set5/HR").mkdir(parents=True)
    (folder / "Set5/LR_bicubic/X2").mkdir(parents=True)
    (folder / "Photos").mkdir()
    for seed, name in enumerate(("a", "b")):
        write_image(folder / f"Set5/HR/{name}.png", photo(seed))
        write_image(folder / f"Set5/LR_bicubic/X2/{name}x2.png", bicubic_down(photo(seed), 2))
        write_image(folder / f"Photos/{name}.png", photo(seed))
    return folder


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("recipe") / "tiny.yaml"
    file.write_text(TINY)
    return file


@pytest.fixture(scope="module")
def output(tiny: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished benchmark of the recipe in two versions of one network."""
    folder = tmp_path_factory.mktemp("benchmark")
    benchmark([tiny], folder, data=data, jobs=1, baseline=True)
    return folder


def test_all_forms_side_by_side_agree_with_evaluate(output: Path, data: Path) -> None:
    rows = {row["form"]: row for row in json.loads((output / "benchmark.json").read_text())["rows"]}
    assert list(rows) == ["float", "nncf", "torch", "openvino"]
    assert all(list(row["sets"]) == ["Set5"] for row in rows.values())
    (run,) = (output / "runs").iterdir()
    expected = evaluate(run, data=data)["Set5"]
    for form in ("float", "torch", "openvino"):
        found = rows[form]["sets"]["Set5"]
        for key in ("psnr", "ssim", "fab"):
            assert found[key] == pytest.approx(expected[form][key], abs=2e-3)
        for name, image in expected[form]["pieces"].items():
            assert found["pieces"][name]["psnr"] == pytest.approx(image["psnr"], abs=5e-3)
    nncf = rows["nncf"]["sets"]["Set5"]
    assert nncf["psnr"] != rows["float"]["sets"]["Set5"]["psnr"]
    assert nncf["fab"] == 8.0
    plain, quantized = (rows[form]["sets"]["Set5"]["weight_activation_bitops"] for form in ("float", "torch"))
    macs = (27 + 27 * 9 + 3 * 8 * 8 * 9 + 8 * 32 * 9 + 4 * 8 * 3 * 9) * 360 * 640
    assert plain == pytest.approx(macs * 1024, rel=0.02)
    assert quantized < plain / 15
    assert rows["torch"]["seconds"] > 0
    assert rows["float"]["seconds"] is None


def test_a_second_call_measures_nothing_again(
    output: Path, tiny: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (output / "benchmark.json").read_text()
    notes = Notes()
    with monkeypatch.context() as patched:
        patched.setattr("qsci_plugins.comparing.benchmark.measure_piece", None)
        patched.setattr("qsci_plugins.comparing.subjects.run_recipe", None)
        benchmark([tiny], output, data=data, jobs=1, baseline=True, progress=notes)
    assert notes.notes == ["8 of 8 images were measured before"]
    assert (output / "benchmark.json").read_text() == before


def test_the_same_pixels_elsewhere_are_not_measured_again_and_low_resolution_is_made_the_same(
    output: Path, tiny: Path, data: Path, tmp_path: Path
) -> None:
    (run,) = (output / "runs").iterdir()
    both = benchmark([run], tmp_path, data=data, sets=["Set5", "Photos"], jobs=1)
    for row in both["rows"]:
        assert row["sets"]["Set5"] == row["sets"]["Photos"]


def test_an_interrupted_benchmark_goes_on_where_it_stopped(
    output: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (run,) = (output / "runs").iterdir()
    measured = []

    def interrupted(work):
        if len(measured) == 3:
            raise KeyboardInterrupt
        measured.append((work.form.kind, work.piece_number))
        return forms.measure_piece(work)

    with monkeypatch.context() as patched:
        patched.setattr("qsci_plugins.comparing.benchmark.measure_piece", interrupted)
        with pytest.raises(KeyboardInterrupt, match="the same command goes on"):
            benchmark([run], tmp_path, data=data, jobs=1)
    assert len((tmp_path / "measurements.jsonl").read_text().splitlines()) == 3
    notes = Notes()
    resumed = benchmark([run], tmp_path, data=data, jobs=1, progress=notes)
    assert notes.notes[0] == "3 of 6 images were measured before"
    lines = (tmp_path / "measurements.jsonl").read_text().splitlines()
    names = [(line["kind"], line["name"]) for line in map(json.loads, lines)]
    assert names == [(form, name) for form in ("float", "torch", "openvino") for name in "ab"]
    whole = json.loads((output / "benchmark.json").read_text())["rows"]
    assert [row["sets"] for row in resumed["rows"]] == [row["sets"] for row in whole if row["form"] != "nncf"]


def test_the_number_of_processes_changes_nothing(output: Path, data: Path, tmp_path: Path) -> None:
    (run,) = (output / "runs").iterdir()
    several = benchmark([run], tmp_path, data=data, jobs=2)
    whole = json.loads((output / "benchmark.json").read_text())["rows"]
    assert [row["sets"] for row in several["rows"]] == [row["sets"] for row in whole if row["form"] != "nncf"]


def test_recipes_of_one_network_share_its_float_rows(tiny: Path, data: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(TINY.replace("activation_bits: 4", "activation_bits: 6"))
    plain = ["export.openvino.mode=none"]
    rows = benchmark([tiny, other], tmp_path / "out", data=data, jobs=1, overrides=plain)["rows"]
    assert [(row["title"], row["form"]) for row in rows] == [(None, "float"), ("tiny", "torch"), ("other", "torch")]
    assert rows[1]["sets"]["Set5"]["fab"] < rows[2]["sets"]["Set5"]["fab"]


def test_mistakes_come_before_any_work(tiny: Path, data: Path, tmp_path: Path) -> None:
    for targets, options, message in (
        ([tiny], {"sets": ["Set55"]}, "nearest is 'Set5'"),
        ([tiny], {"sets": ["Set5", str(data / "Set5")]}, "two of the sets have the same name"),
        ([tiny, tiny], {}, "tiny.yaml comes twice"),
        ([tmp_path], {}, r"is no output of `qsci run`: it has no recipe\.yaml"),
        (["recipes/float/edsr_x4.yaml"], {}, "trains a float network"),
        (["edsr_x4_adabm_w4a44"], {}, "the nearest shipped ones"),
    ):
        with pytest.raises(UserError, match=message):
            benchmark(targets, tmp_path / "out", data=data, **options)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="none of the standard sets"):
        benchmark([tiny], tmp_path / "out", data=tmp_path / "empty")
    assert not (tmp_path / "out").exists()

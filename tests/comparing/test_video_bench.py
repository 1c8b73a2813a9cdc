"""`qsci bench` for networks that reconstruct video."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.io import savemat
from tiny_video import TINY_VIDEO

from qsci_plugins.cli import main
from qsci_plugins.commands.bench import bench
from qsci_plugins.comparing.contenders import make_contender, static_contenders, stock_placement
from qsci_plugins.data.scenes import synthetic_scene
from qsci_plugins.data.snapshots import random_mask
from qsci_plugins.errors import UserError
from qsci_plugins.evaluation.baselines import Failed
from qsci_plugins.openvino.precisions import has_bf16
from qsci_plugins.pipeline.task import task_of
from qsci_plugins.pipeline.video_prepare import prepare
from qsci_plugins.progress import Progress
from qsci_plugins.recipes import make_recipe
from qsci_plugins.schemes.scheme import Scheme


@pytest.fixture
def finished(video_run: Path) -> Path:
    return video_run


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    """A folder with one scene of the size of a tile."""
    folder = tmp_path / "scenes"
    folder.mkdir()
    mask = random_mask(3, 24, 24, seed=4)
    frames = synthetic_scene(3, 24, 24)
    savemat(folder / "moving.mat", {"orig": frames.transpose(1, 2, 0), "mask": mask.transpose(1, 2, 0)})
    return folder


def rows_of(table: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in table["rows"]}


def test_a_run_beside_what_there_is_without_us(finished: Path, scenes: Path, tmp_path: Path, capsys: Any) -> None:
    threads = torch.get_num_threads()
    picture = tmp_path / "bench.png"
    command = ["bench", str(finished), "--data", str(scenes), "--repeats", "2", "--threads", "1"]
    assert main([*command, "--format", "json", "--picture", str(picture)]) == 0
    table = json.loads(capsys.readouterr().out)["models"][0]
    assert (table["tile"], table["frames"], table["threads"]) == ([24, 24], 3, 1)
    rows = rows_of(table)
    assert list(rows) == ["fp32", *(["bf16"] if has_bf16() else []), "nncf_int8", "static_int8", "torch", "ours"]
    for name, row in rows.items():
        assert 0 < row["fast_ms"] <= row["median_ms"] <= row["slowest_ms"]
        assert (row["export_seconds"] is None) == (name == "torch")
    # the same network behind the same runtime as in torch, and coarser where it is quantized
    psnr = {name: row["psnr"]["scenes"] for name, row in rows.items()}
    assert psnr["fp32"] == pytest.approx(psnr["torch"], abs=1e-3)
    assert len({round(psnr[name], 3) for name in ("fp32", "nncf_int8", "static_int8", "ours")}) == 4
    assert torch.get_num_threads() == threads
    assert picture.stat().st_size > 1000


@pytest.mark.usefixtures("in_this_process")
def test_a_baseline_that_fails_keeps_its_row_with_the_reason(
    finished: Path, scenes: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, tmp_path: Path
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("Check 'rank' failed at\nan operation that NNCF does not know")

    monkeypatch.setattr("nncf.quantize", refuse)
    monkeypatch.setattr("qsci_plugins.comparing.contenders.static_network", refuse)
    picture = tmp_path / "bench.png"
    command = ["bench", str(finished), "--data", str(scenes), "--repeats", "1", "--threads", "1"]
    assert main([*command, "--picture", str(picture)]) == 0
    text = capsys.readouterr().out
    for title in ("NNCF default INT8", "static INT8, same placement"):
        assert f"| {title}" in text
        assert f"{title} fails: RuntimeError: Check 'rank' failed at an operation that NNCF does not know" in text
    assert picture.stat().st_size > 1000


@pytest.mark.usefixtures("in_this_process")
def test_a_form_of_ours_that_fails_ends_the_bench(
    finished: Path, scenes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("ours")

    monkeypatch.setattr("qsci_plugins.comparing.bench.exported_contenders", refuse)
    with pytest.raises(RuntimeError, match="ours"):
        bench([finished], data=scenes, repeats=1, threads=1)


def test_a_model_folder_has_its_own_rows_alone(finished: Path, scenes: Path) -> None:
    (table,) = bench([finished / "model"], data=scenes, repeats=1, threads=1)
    assert list(rows_of(table)) == ["ours"]
    with pytest.raises(UserError, match="there is no set 'Set5'"):
        bench([finished], data=scenes, sets=["Set5"])


def test_scenes_of_another_camera_are_refused(finished: Path, scenes: Path) -> None:
    mask = random_mask(2, 24, 24).transpose(1, 2, 0)
    savemat(scenes / "other.mat", {"orig": synthetic_scene(2, 24, 24).transpose(1, 2, 0), "mask": mask})
    with pytest.raises(UserError, match="other has 2 frames in one measurement, the network 3"):
        bench([finished], data=scenes)


def test_the_float_network_is_quantized_where_the_recipe_quantizes() -> None:
    settings = ["place={targets: ['fem.0.layer', 'resdnet_*'], eight_bit: ['vrm.*'], float: ['vrm.0']}"]
    prepared = prepare(make_recipe(TINY_VIDEO, overrides=settings), None, Progress())
    placement = stock_placement(prepared)
    names = [name for name, _ in prepared.float_network.module.named_modules()]
    assert "fem.0" in placement.targets
    assert set(placement.targets) | set(placement.eight_bit) <= set(names)
    assert not any("shortcut" in name for name in (*placement.targets, *placement.eight_bit))
    assert "vrm.0" not in placement.eight_bit


def test_the_row_of_a_scheme_without_a_static_form_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = prepare(make_recipe(TINY_VIDEO), None, Progress())
    monkeypatch.setattr(type(prepared.scheme), "static", Scheme.static)
    ((name, make),) = static_contenders(task_of(prepared.recipe), prepared, tmp_path, 1).items()
    reason = "the scheme qsci has no static form"
    assert make_contender(name, make, (24, 24)) == Failed("static_int8", "static INT8, same placement", reason)


def test_a_recipe_that_is_static_itself_has_no_second_row(tmp_path: Path) -> None:
    static = ["scheme={name: qsci, weight_bits: 8, activation_bits: 8, shift: false}", "shortcuts=[]"]
    prepared = prepare(make_recipe(TINY_VIDEO, overrides=static), None, Progress())
    assert static_contenders(task_of(prepared.recipe), prepared, tmp_path, 1) == {}

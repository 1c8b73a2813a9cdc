"""`qsci bench` for networks that reconstruct video."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from qsci_plugins.pipeline.video_run import run_video_recipe
from scipy.io import savemat

from qsci_plugins.cli import main
from qsci_plugins.comparing.bench import bench_model
from qsci_plugins.comparing.contenders import static_scheme
from qsci_plugins.comparing.video_contenders import plain_placement
from qsci_plugins.data.scenes import synthetic_scene
from qsci_plugins.data.snapshots import random_mask
from qsci_plugins.errors import UserError
from qsci_plugins.openvino.precisions import has_bf16
from qsci_plugins.pipeline.video_prepare import prepare_video
from qsci_plugins.progress import Progress
from qsci_plugins.recipes import VideoRecipe, make_recipe, read_recipe, write_recipe
from qsci_plugins.recipes.library import find_recipe

TINY = {
    "version": 1,
    "model": {"architecture": "efficientsci", "settings": {"in_ch": 2, "units": 1, "group_num": 1}},
    "scheme": {"name": "qsci", "weight_bits": 4, "activation_bits": 4},
    "shortcuts": ["fem.*"],
    "clips": {"frames": 3, "size": 24, "resize": False},
    "calibrate": {"count": 2, "patch": 8, "batch": 2},
    "export": {"openvino": {"tile": [24, 24], "overlap": 1}},
}


def tiny(*overrides: str) -> VideoRecipe:
    made = make_recipe(TINY, overrides=overrides)
    assert isinstance(made, VideoRecipe)
    return made


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_video_recipe(tiny(), tmp_path_factory.mktemp("runs") / "tiny")


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    """A folder with one scene of the size of a tile."""
    folder = tmp_path / "scenes"
    folder.mkdir()
    mask = random_mask(3, 24, 24, seed=4)
    frames = synthetic_scene(3, 24, 24)
    savemat(folder / "moving.mat", {"orig": frames.transpose(1, 2, 0), "mask": mask.transpose(1, 2, 0)})
    return folder


def rows_of(told: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in told["rows"]}


def test_a_run_beside_what_there_is_without_us(finished: Path, scenes: Path, tmp_path: Path, capsys: Any) -> None:
    threads = torch.get_num_threads()
    picture = tmp_path / "bench.png"
    command = ["bench", str(finished), "--data", str(scenes), "--repeats", "2", "--threads", "1"]
    assert main([*command, "--format", "json", "--picture", str(picture)]) == 0
    told = json.loads(capsys.readouterr().out)["models"][0]
    assert (told["tile"], told["frames"], told["threads"]) == ([24, 24], 3, 1)
    rows = rows_of(told)
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


def test_a_baseline_that_fails_keeps_its_row_with_the_reason(
    finished: Path, scenes: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, tmp_path: Path
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("Check 'rank' failed at\nan operation that NNCF does not know")

    monkeypatch.setattr("nncf.quantize", refuse)
    monkeypatch.setattr("qsci_plugins.comparing.video_contenders.static_network", refuse)
    picture = tmp_path / "bench.png"
    command = ["bench", str(finished), "--data", str(scenes), "--repeats", "1", "--threads", "1"]
    assert main([*command, "--picture", str(picture)]) == 0
    text = capsys.readouterr().out
    for title in ("NNCF default INT8", "static INT8, same placement"):
        assert f"| {title}" in text
        assert f"{title} fails: RuntimeError: Check 'rank' failed at an operation that NNCF does not know" in text
    assert picture.stat().st_size > 1000


def test_a_form_of_ours_that_fails_ends_the_bench(
    finished: Path, scenes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("ours")

    monkeypatch.setattr("qsci_plugins.comparing.video_contenders.exported_graph", refuse)
    with pytest.raises(RuntimeError, match="ours"):
        bench_model(finished, scenes, repeats=1, threads=1)


@pytest.mark.parametrize("command", ["evaluate", "benchmark"])
@pytest.mark.parametrize("target", ["run", "model", "training", "recipe", "shipped"])
def test_commands_for_images_refuse_video(
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
    target: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "training").mkdir()
    write_recipe(read_recipe(find_recipe("efficientsci_small")), tmp_path / "training" / "recipe.yaml")
    write_recipe(tiny(), tmp_path / "tiny.yaml")
    targets = {"run": str(finished), "model": str(finished / "model"), "training": "training", "recipe": "tiny.yaml"}
    assert main([command, targets.get(target, "efficientsci_t_qsci_w4a4")]) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert error.startswith("qsci: error: ")
    if (command, target) == ("benchmark", "model"):
        assert "is no output of `qsci run`: it has no recipe.yaml" in error
    elif command == "evaluate" and target in ("recipe", "shipped"):
        assert "there is no run" in error
    else:
        assert "is for video, which image sets do not measure" in error
        assert "metrics.json has its PSNR, and `qsci reconstruct` measures other scenes" in error
    assert sorted(file.name for file in tmp_path.iterdir()) == ["tiny.yaml", "training"]


def test_a_model_folder_has_its_own_rows_alone(finished: Path, scenes: Path) -> None:
    told = bench_model(finished / "model", scenes, repeats=1, threads=1)
    assert list(rows_of(told)) == ["ours"]
    with pytest.raises(UserError, match="for video: leave out --sets"):
        bench_model(finished, scenes, ["Set5"])


def test_scenes_of_another_camera_are_refused(finished: Path, scenes: Path) -> None:
    mask = random_mask(2, 24, 24).transpose(1, 2, 0)
    savemat(scenes / "other.mat", {"orig": synthetic_scene(2, 24, 24).transpose(1, 2, 0), "mask": mask})
    with pytest.raises(UserError, match=r"other has 2 frames in one measurement, .*tiny 3"):
        bench_model(finished, scenes)


def test_static_8_bits_of_each_kind_of_scheme() -> None:
    assert static_scheme({"name": "qsci", "weight_bits": 2, "attention": ["a"]}) == {
        "name": "qsci",
        "weight_bits": 8,
        "activation_bits": 8,
        "shift": False,
        "attention": ["a"],
    }
    assert static_scheme({"name": "cadyq"})["image_mapping"] is False


def test_the_float_network_is_quantized_where_the_recipe_quantizes() -> None:
    settings = ["place={targets: ['fem.0.layer', 'resdnet_*'], eight_bit: ['vrm.*'], float: ['vrm.0']}"]
    prepared = prepare_video(tiny(*settings), Progress())
    placement = plain_placement(prepared)
    names = [name for name, _ in prepared.float_network.module.named_modules()]
    assert "fem.0" in placement.targets
    assert set(placement.targets) | set(placement.eight_bit) <= set(names)
    assert not any("shortcut" in name for name in (*placement.targets, *placement.eight_bit))
    assert "vrm.0" not in placement.eight_bit

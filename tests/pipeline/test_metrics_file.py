"""metrics.json is read back as it was written, and files of version 1 (as its code wrote them) in the same shape."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from qsci_plugins.errors import UserError
from qsci_plugins.pipeline.metrics import read_metrics, write_metrics
from qsci_plugins.report.summary import summary

OLD = Path(__file__).parent / "old_metrics"

KEYS = {
    "version",
    "task",
    "kind",
    "network",
    "backend",
    "scheme",
    "sets",
    "operations",
    "latency",
    "training",
    "seconds",
    "bits",
    "float_layers",
    "layer_errors",
    "machine",
}


def old(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((OLD / f"{name}.json").read_text())
    return content


@pytest.mark.parametrize(
    ("name", "task", "kind"),
    [
        ("image_run", "sr", "quantize"),
        ("video_run", "sci", "quantize"),
        ("image_training", "sr", "train"),
        ("video_training", "sci", "train"),
    ],
)
def test_every_old_shape_has_the_keys_of_the_new_one(name: str, task: str, kind: str) -> None:
    metrics = read_metrics(OLD / f"{name}.json")
    assert set(metrics) == KEYS
    assert (metrics["version"], metrics["task"], metrics["kind"]) == (2, task, kind)
    assert set(metrics["network"]) == {"architecture", "weights", "settings", "scale", "shortcuts"}
    for forms in metrics["sets"].values():
        for form in forms.values():
            assert set(form) >= {"psnr", "ssim", "fab", "pieces"}
            assert all(set(piece) >= {"psnr", "ssim", "fab"} for piece in form["pieces"].values())
    for key in ("backend", "scheme", "operations", "bits"):
        assert (metrics[key] is None) == (kind == "train"), key


def test_numbers_of_old_image_runs_keep_their_meaning() -> None:
    before, metrics = old("image_run"), read_metrics(OLD / "image_run.json")
    row, then = metrics["sets"]["builtin"], before["sets"]["builtin"]
    assert row["torch"]["psnr"] == then["torch"]["psnr_y"]
    assert row["torch"]["patches"] == then["torch"]["patches"]
    assert row["openvino"]["pieces"]["coffee"]["psnr"] == then["openvino"]["images"]["coffee"]["psnr_y"]
    assert metrics["network"]["scale"] == 2
    assert metrics["training"] == {"steps": 3, "examples": None, "log": before["training"]}
    assert metrics["latency"] == before["latency"]
    assert "# edsr x2, cadyq through nncf" in summary(metrics)


def test_numbers_of_old_video_runs_keep_their_meaning() -> None:
    before, metrics = old("video_run"), read_metrics(OLD / "video_run.json")
    scene = before["sets"]["builtin"]["torch"]["scenes"]["builtin"]
    assert metrics["sets"]["builtin"]["torch"]["pieces"]["builtin"] == scene
    assert metrics["network"]["shortcuts"] == ["fem.*"]
    assert metrics["latency"] is None
    assert "Shortcuts: fem.*." in summary(metrics)


def test_numbers_of_old_trainings_keep_their_meaning() -> None:
    images, video = read_metrics(OLD / "image_training.json"), read_metrics(OLD / "video_training.json")
    assert images["training"] == {"steps": 2, "examples": 1, "log": []}
    assert video["training"] == {"steps": 2, "examples": 168, "log": []}
    assert images["seconds"] == {"training": 0.1}
    image = old("image_training")["sets"]["builtin"]["images"][1]
    assert images["sets"]["builtin"]["float"]["pieces"]["coffee"] == {
        "psnr": image["psnr_y"],
        "ssim": image["ssim"],
        "fab": 32.0,
    }


def test_what_was_written_is_read_and_what_is_not_ours_is_refused(tmp_path: Path) -> None:
    metrics = read_metrics(OLD / "video_run.json")
    write_metrics(tmp_path, metrics)
    file = tmp_path / "metrics.json"
    assert read_metrics(file) == metrics
    file.write_text(json.dumps({**metrics, "version": 3}))
    with pytest.raises(UserError, match="has version 3, this package reads up to 2; update"):
        read_metrics(file)
    for damaged in ("{", "[]", "{}"):
        file.write_text(damaged)
        with pytest.raises(UserError, match="is damaged or not a run's"):
            read_metrics(file)
    with pytest.raises(UserError, match=r"cannot read .*give the output folder"):
        read_metrics(tmp_path / "nothing.json")

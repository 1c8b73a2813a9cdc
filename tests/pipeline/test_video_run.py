from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from noted import Notes, StopAt
from safetensors.torch import load_file
from scipy.io import savemat

from qsci_plugins.data.images import write_image
from qsci_plugins.data.scenes import synthetic_scene
from qsci_plugins.data.snapshots import mixed_masks, random_mask
from qsci_plugins.errors import UserError
from qsci_plugins.evaluation.metrics import score_video
from qsci_plugins.evaluation.torch_networks import TorchReconstructor
from qsci_plugins.pipeline.float_run import train_recipe
from qsci_plugins.pipeline.run import run_recipe
from qsci_plugins.pipeline.video_prepare import prepare, resolve
from qsci_plugins.progress import Progress
from qsci_plugins.recipes import FloatVideoRecipe, VideoRecipe, make_recipe, read_recipe
from qsci_plugins.report.page import write_report


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """DAVIS layout with two sequences, and a scene with its mask."""
    folder = tmp_path_factory.mktemp("data")
    for number in range(2):
        (folder / "videos" / f"clip{number}").mkdir(parents=True)
        for index, frame in enumerate(synthetic_scene(5, 24, 32, number, color=True, part="calibration")):
            write_image(folder / "videos" / f"clip{number}" / f"{index:05d}.png", frame)
    (folder / "scenes").mkdir()
    mask = random_mask(3, 20, 18, seed=4)
    scene = {"orig": synthetic_scene(6, 20, 18).transpose(1, 2, 0), "mask": mask.transpose(1, 2, 0)}
    savemat(folder / "scenes" / "moving.mat", scene)
    savemat(folder / "mask.mat", {"mask": random_mask(3, 24, 24).transpose(1, 2, 0).astype(np.uint8)})
    return folder


def recipe(data: Path, *overrides: str) -> VideoRecipe:
    checked = make_recipe(_quantizing(data), overrides=overrides)
    assert isinstance(checked, VideoRecipe)
    return checked


def _quantizing(data: Path) -> dict[str, Any]:
    return {
        **_training(data),
        "scheme": {"name": "qsci", "weight_bits": 4, "activation_bits": 4},
        "shortcuts": ["fem.*", "vrm.*"],
        "calibrate": {"count": 2, "patch": 8, "batch": 2},
        "export": {"openvino": {"mode": "none"}},
    }


def _training(data: Path) -> dict[str, Any]:
    return {
        "version": 1,
        "model": {"architecture": "efficientsci", "settings": {"in_ch": 4, "units": 1, "group_num": 2}},
        "clips": {"folders": [str(data / "videos")], "mask": str(data / "mask.mat"), "resize": False},
        "train": {"phases": [{"crop": 8, "steps": 4, "rate": 1e-3}], "batch": 2, "checkpoint_every": 2, "cpu": True},
        "evaluate": [{"set": "mine", "folder": str(data / "scenes")}],
    }


@pytest.mark.parametrize("backend", ["nncf", "brevitas"])
def test_a_run_leaves_a_quantized_network_and_says_what_it_is_worth(backend: str, data: Path, tmp_path: Path) -> None:
    output = run_recipe(recipe(data, f"backend={backend}"), tmp_path / "out", report=write_report)
    files = {"checkpoint.pt", "metrics.json", "recipe.yaml", "reconstruction_moving.png", "summary.md"}
    files |= {"pictures", "report.html"}
    assert {file.name for file in output.iterdir()} == files
    metrics = json.loads((output / "metrics.json").read_text())
    bits = {name: layer["weight"] for name, layer in metrics["bits"].items()}
    assert bits["fem.0.shortcut"] == bits["vrm.4.shortcut"] == 8
    assert bits["fem.0.layer"] == bits["up_conv"] == 4
    scores = metrics["sets"]["mine"]
    assert len(scores["torch"]["pieces"]["moving"]["measurements"]) == 2
    assert scores["torch"]["psnr"] != scores["float"]["psnr"]
    assert scores["torch"]["fab"] == 4
    assert metrics["operations"]["quantized"]["qsci_ops"] < 0.2 * metrics["operations"]["float"]["macs"]
    assert "of float" in (output / "summary.md").read_text()
    again = read_recipe(output / "recipe.yaml")
    assert isinstance(again, VideoRecipe)
    assert Path(again.clips.folders[0]).is_absolute()


def test_an_interrupted_run_ends_with_the_same_network(data: Path, tmp_path: Path) -> None:
    whole = run_recipe(recipe(data), tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt, match="step 3 of training; the same command goes on"):
        run_recipe(recipe(data), tmp_path / "halves", progress=StopAt("training", 3))
    assert not (tmp_path / "halves").exists()
    halves = run_recipe(recipe(data), tmp_path / "halves")
    first, second = (
        torch.load(folder / "checkpoint.pt", weights_only=True)["state_dict"] for folder in (whole, halves)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any("step" in name for name in first)


@pytest.mark.parametrize(("mask", "shifts"), [("shifting", True), ("random", False)])
def test_clips_are_seen_through_a_drawn_mask(mask: str, shifts: bool, data: Path) -> None:
    drawn = resolve(recipe(data, f"clips.mask={mask}", "clips.frames=3", "clips.size=24", "evaluate=[]"))
    assert drawn.clips.mask == mask
    prepared = prepare(drawn, None, Progress())
    assert prepared.examples is not None
    seen = prepared.examples[0].draw(0, 0, 2)[1]
    assert seen.shape[1] == 3
    assert torch.equal(seen[:, 1:, :, 1:], seen[:, :-1, :, :-1]) == shifts


def test_clips_of_a_recipe_are_exposed_as_it_says(data: Path) -> None:
    drawn = []
    for exposure in 1, 4:
        prepared = prepare(recipe(data, f"clips.exposure={exposure}", "evaluate=[]"), None, Progress())
        assert prepared.examples is not None
        drawn.append((prepared.examples[0].draw(0, 0, 16)[3], prepared.batches[0][0]))
    (plain, calibrated), (exposed, calibrated_exposed) = drawn
    assert (exposed.mean((1, 2, 3)) < 0.5 * plain.mean((1, 2, 3))).any()
    assert not torch.equal(calibrated, calibrated_exposed)


def test_clips_are_seen_through_masks_of_every_kind(data: Path) -> None:
    prepared = prepare(resolve(recipe(data, "clips.mask=mixed", "clips.frames=3", "evaluate=[]")), None, Progress())
    assert prepared.examples is not None
    seen = prepared.examples[0].draw(0, 0, 64)[1]
    moves_right = (seen[:, 1:, :, 1:] == seen[:, :-1, :, :-1]).flatten(1).all(1)
    moves_up = (seen[:, 1:, :-1] == seen[:, :-1, 1:]).flatten(1).all(1)
    assert moves_right.any()
    assert moves_up.any()
    assert (~moves_right & ~moves_up).sum() > 32


@pytest.mark.parametrize("mask", ["random", "shifting", "file"])
def test_scenes_are_measured_behind_another_mask(mask: str, data: Path, tmp_path: Path) -> None:
    """A network knows the kind of mask that it was trained behind, which nobody sees who measures behind that one alone."""
    other = random_mask(3, 20, 18, seed=9)
    savemat(tmp_path / "other.mat", {"mask": other.transpose(1, 2, 0)})
    named = str(tmp_path / "other.mat") if mask == "file" else mask
    sets = (
        f"evaluate=[{{set: own, folder: {data / 'scenes'}}}, {{set: other, folder: {data / 'scenes'}, mask: {named}}}]"
    )
    resolved = resolve(recipe(data, sets))
    assert [item.mask for item in resolved.evaluate] == [None, named]
    prepared = prepare(resolved, None, Progress())
    own, changed = (found.pieces[0] for found in prepared.sets)
    used = changed.source.mask
    assert used.shape == own.source.mask.shape
    assert not np.array_equal(used, own.source.mask)
    if mask == "file":
        np.testing.assert_array_equal(used, other)
    assert np.array_equal(used[1:, :, 1:], used[:-1, :, :-1]) == (mask == "shifting")
    # the same frames, and not the measurement of the file
    pairs = list(zip(own.source.pairs(), changed.source.pairs(), strict=True))
    assert len(pairs) == 2
    for (_, truth), (measurement, same) in pairs:
        np.testing.assert_array_equal(truth, same)
        np.testing.assert_allclose(measurement, (used * truth).sum(0), atol=1e-6)
    reconstruct = TorchReconstructor(prepared.float_network.module, used, prepared.network.size_multiple).reconstruct
    expected = [score_video(reconstruct(measurement), truth).psnr for _, (measurement, truth) in pairs]
    output = run_recipe(recipe(data, sets, "train.phases.0.steps=1"), tmp_path / "out")
    scores = json.loads((output / "metrics.json").read_text())["sets"]
    assert scores["other"]["float"]["psnr"] == pytest.approx(sum(expected) / 2, abs=1e-5)
    assert abs(scores["own"]["float"]["psnr"] - scores["other"]["float"]["psnr"]) > 1e-4


def test_scenes_are_measured_behind_each_of_several_masks(data: Path) -> None:
    scenes = f"evaluate=[{{set: kinds, folder: {data / 'scenes'}, mask: mixed}}]"
    (found,) = prepare(recipe(data, scenes), None, Progress()).sets
    assert [piece.source.name for piece in found.pieces] == [f"moving_{number}" for number in range(1, 9)]
    unseen = np.stack([piece.source.mask for piece in found.pieces])
    assert (unseen != mixed_masks(3, 20, 18)).any((1, 2, 3)).all(), "a training with clips.mask=mixed sees these"


def test_a_training_says_what_the_float_network_has_on_its_clips(data: Path, tmp_path: Path) -> None:
    """Clips are harder or easier than scenes: without it nobody knows what the PSNR of a step should become."""
    notes = Notes()
    run_recipe(recipe(data, "evaluate=[]", "train.phases.0.steps=1"), tmp_path / "out", progress=notes)
    prepared = prepare(recipe(data), None, Progress())
    assert prepared.examples is not None
    found = []
    for step in range(16):
        measurement, mask, mask_sum, frames = prepared.examples[0].draw(0, step, 2)
        with torch.no_grad():
            error = (prepared.float_network.module(measurement, mask, mask_sum) - frames).square().mean().item()
        found.append(-10 * math.log10(error))
    assert f"the float network has {sum(found) / 16:.2f} dB on clips of the first steps" in notes.notes


def test_training_moves_weights_steps_and_shifts(data: Path, tmp_path: Path) -> None:
    states = []
    for name, steps in ("little", 1), ("more", 4):
        output = run_recipe(recipe(data, f"train.phases.0.steps={steps}", "evaluate=[]"), tmp_path / name)
        states.append(torch.load(output / "checkpoint.pt", weights_only=True)["state_dict"])
    first, second = states
    moved = {name for name in first if not torch.equal(first[name], second[name])}
    for part in ("fem.0.shortcut.weight", "up_conv.weight", ".step", ".zero_point", ".shift"):
        assert any(part in name for name in moved), part


@pytest.mark.parametrize(
    ("shortcuts", "shift", "extra"),
    [("[]", "false", set()), ("[]", "true", {"shift"}), ("[fem.*]", "true", {"shift", "fem"})],
)
def test_each_part_can_be_switched_off(shortcuts: str, shift: str, extra: set[str], data: Path) -> None:
    prepared = prepare(recipe(data, f"shortcuts={shortcuts}", f"scheme.shift={shift}"), None, Progress())
    branches = {name.split(".")[0] for name in prepared.network.module.state_dict() if ".shortcut." in name}
    plan = prepared.scheme.plan(prepared.network.module, prepared.placement, prepared.batches[0])
    shifted = {"shift" for attention in plan.attentions.values() if attention.query.shift is not None}
    assert branches | shifted == extra


def test_adabm_takes_its_factor_from_the_measurement(data: Path, tmp_path: Path) -> None:
    scheme = "scheme={name: adabm, weight_bits: 8, activation_bits: 6, reconstruct_weights: false}"
    overrides = ["shortcuts=[]", "train=null", "calibrate.count=8", "calibrate.batch=4", scheme]
    output = run_recipe(recipe(data, *overrides), tmp_path / "out")
    metrics = json.loads((output / "metrics.json").read_text())
    assert 4 <= metrics["sets"]["mine"]["torch"]["fab"] <= 8
    state = torch.load(output / "checkpoint.pt", weights_only=True)["state_dict"]
    lower, upper = (next(v for k, v in state.items() if k.endswith(f"input_module.{x}")) for x in ("lower", "upper"))
    assert 0 < float(lower) <= float(upper)


def test_float_training_with_a_board(data: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    mapping = {**_training(data), "train": {**_training(data)["train"], "tensorboard": True, "picture_every": 2}}
    wanted = make_recipe(mapping)
    assert isinstance(wanted, FloatVideoRecipe)
    output = train_recipe(wanted, tmp_path / "out")
    assert json.loads((output / "metrics.json").read_text())["sets"]["mine"]["float"]["psnr"] > 3
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(output / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [1, 2, 3, 4]
    assert len(events.Images(events.Tags()["images"][0])) == 2
    assert load_file(output / "weights.safetensors")["fem.0.weight"].shape == (4, 1, 3, 7, 7)


def test_the_exported_network_is_timed_beside_what_fails(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("no such operation")

    monkeypatch.setattr("nncf.quantize", refuse)
    exported = ["export.openvino={mode: static, tile: [24, 24]}", "train=null", "shortcuts=[fem.*]"]
    output = run_recipe(recipe(data, *exported), tmp_path / "out", report=write_report)
    latency = json.loads((output / "metrics.json").read_text())["latency"]
    rows = {row["name"]: row for row in latency["rows"]}
    first, *_, last, ours = rows
    assert (first, last, ours) == ("fp32", "nncf_int8", "ours")
    assert min(rows[name]["median_ms"] for name in ("fp32", "ours")) > 0
    assert rows["nncf_int8"]["failed"] == "RuntimeError: no such operation"
    assert any("Convolution" in node["type"] for node in latency["precisions"])
    text = (output / "summary.md").read_text()
    assert "## Latency of one 24x24 tile" in text
    assert "NNCF default INT8 fails: RuntimeError: no such operation" in text


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["clips.folders=[/nowhere/at/all]"], r"clips\.folders: /nowhere/at/all"),
        (["clips.mask=/nowhere.mat"], r"clips\.mask: .*/nowhere\.mat"),
        (["train.phases.0.crop=9"], r"train\.phases\.0\.crop is 9; efficientsci needs multiples of 2"),
        (["train.phases.0.crop=64"], r"train\.phases\.0: the mask is 24x24 pixels"),
        (["train.phases.0.frames=9"], r"train\.phases\.0: the mask has 3 frames, not 9"),
        (["calibrate.patch=9"], r"calibrate\.patch is \[9\]"),
        (["shortcuts=[head.*]"], "shortcuts: no convolution is named 'head"),
        (["model={architecture: edsr, scale: 2}"], "model: edsr enlarges images"),
        (["export.openvino={mode: static, tile: [32, 32], overlap: 8}"], "which needs tiles of 35 pixels or more"),
        (["export.openvino={mode: static, tile: [16, 64]}"], "which needs tiles of 19 pixels or more"),
        (["train.gradient_checkpointing=true"], "does not see NNCF's hooks"),
        (["evaluate=[{set: mine, folder: /nowhere}]"], r"evaluate\.0\.folder: /nowhere is not a folder"),
        (
            ["evaluate=[{set: builtin, mask: shiftng}]"],
            r"evaluate\.0\.mask: there is no file .*shiftng; .*or draw one: random",
        ),
        (
            ["evaluate=[{set: builtin, mask: {data}/mask.mat}]"],
            r"evaluate\.0: the mask has 3 frames of 24x24, builtin 3 frames of 256x256$",
        ),
        (["evaluate=[{set: builtin, mask: {data}/videos}]"], r"evaluate\.0: mask: .*videos"),
    ],
)
def test_mistakes_are_named_before_any_work(overrides: list[str], message: str, data: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        run_recipe(recipe(data, *(override.replace("{data}", str(data)) for override in overrides)), tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["clips.exposure=0.5"], r"clips\.exposure"),
        (["clips.mak=x"], "unknown key 'clips.mak'; the nearest is 'clips.mask'"),
        (["train.phases=[]"], r"train\.phases"),
        (["evaluate=[{set: builtin, folder: x}]"], "a set is `builtin`, or has a folder"),
        (["clips.folders=[builtin:scenes, x]"], "stands alone"),
        (["scheme.wieght_bits=4"], "wieght_bits"),
    ],
)
def test_mistakes_in_a_recipe_are_named(overrides: list[str], message: str, data: Path) -> None:
    with pytest.raises(UserError, match=message):
        make_recipe(_quantizing(data), overrides=overrides)

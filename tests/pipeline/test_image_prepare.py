from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from qsci_plugins.data import write_image
from qsci_plugins.data.photos import builtin_photos, calibration_tiles
from qsci_plugins.errors import UserError
from qsci_plugins.openvino.gradient import route_factor, tile_gradient
from qsci_plugins.openvino.tiling import cut_tile, plan_axis
from qsci_plugins.pipeline import image_prepare
from qsci_plugins.pipeline.image_prepare import fit_thresholds, resolve
from qsci_plugins.pipeline.task import Prepared
from qsci_plugins.progress import Progress
from qsci_plugins.recipes import Recipe, make_recipe
from qsci_plugins.schemes.bit_width import ImageToBit
from qsci_plugins.schemes.placement import place
from qsci_plugins.schemes.registry import make_scheme
from qsci_plugins.schemes.scheme import QuantizedNetwork

SMALL: dict[str, Any] = {
    "version": 1,
    "model": {"architecture": "edsr", "scale": 2, "settings": {"blocks": 1, "width": 4}},
    "scheme": {"name": "adabm"},
    "place": {"targets": "body.*", "eight_bit": ["head.*"]},
    "calibrate": {"count": 5, "patch": 16, "batch": 2},
}


def recipe(*overrides: str) -> Recipe:
    checked = make_recipe(copy.deepcopy(SMALL), overrides=overrides)
    assert isinstance(checked, Recipe)
    return checked


def prepare(wanted: Recipe) -> Prepared:
    return image_prepare.prepare(wanted, None, Progress())


def patches(wanted: Recipe) -> torch.Tensor:
    return torch.cat(prepare(wanted).batches)


def test_patches_are_in_the_range_of_the_network() -> None:
    prepared = prepare(recipe())
    assert [len(batch) for batch in prepared.batches] == [2, 2, 1]
    whole = torch.cat(prepared.batches)
    assert whole.shape == (5, 3, 16, 16)
    assert whole.max() > 100
    assert torch.allclose(patches(recipe("model.value_range=1.0")) * 255, whole)


def test_layers_and_overlap_follow_from_the_recipe() -> None:
    prepared = prepare(recipe())
    precisions = place(prepared.network.module, prepared.placement)
    assert precisions["head.0"] == "eight_bit"
    assert precisions["body.1"] == "scheme"
    assert "tail.1" not in precisions
    assert prepared.overlap == prepared.network.receptive_radius
    assert prepare(recipe("export.openvino.tile=[16, 64]")).overlap == 2  # more would leave the tile no middle
    assert prepare(recipe("export.openvino.overlap=3")).overlap == 3


def test_images_of_a_folder(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", np.full((40, 40, 3), 200, np.uint8))
    assert torch.equal(patches(recipe(f"calibrate.images={tmp_path}")), torch.full((5, 3, 16, 16), 200.0))
    with pytest.raises(UserError, match="calibrate: no photo is large enough"):
        prepare(recipe(f"calibrate.images={tmp_path}", "calibrate.patch=24"))
    assert len(patches(recipe(f"calibrate.images={tmp_path}", "calibrate.patch=24", "calibrate.degrade=false")))


@pytest.mark.parametrize("mode", ["static", "dynamic"])
def test_one_graph_for_all_tiles_skips_no_blocks(mode: str) -> None:
    with pytest.raises(UserError, match=rf"export\.openvino\.mode: {mode} writes one graph .* take routed, or none"):
        prepare(recipe("scheme.skip_share=0.5", f"export.openvino.mode={mode}"))


def routes_of(photo: np.ndarray, images: ImageToBit, tile: tuple[int, int], overlap: int) -> set[int]:
    """The image factors of a photo's tiles, as the runtime lays and measures them."""
    rows, columns = (plan_axis(*sides, overlap, 4) for sides in zip(photo.shape, tile, strict=False))
    tiles = [cut_tile(photo, y, x, *tile) for y in rows.starts for x in columns.starts]
    thresholds = images.thresholds()
    return {route_factor(tile_gradient(each), *thresholds) for each in tiles}


@pytest.mark.parametrize("form", ["integer", "faithful"])
def test_thresholds_follow_the_size_of_the_tiles(form: str) -> None:
    """Gradients of large tiles spread less: by the thresholds of patches nearly all of them would be average."""
    wanted = recipe(
        "model.scale=4",
        f"scheme.form={form}",
        "calibrate={count: 100, patch: 48, batch: 100}",
        "export.openvino={mode: routed, tile: [96, 96], overlap: 8}",
    )
    prepared = prepare(wanted)
    images = ImageToBit(255.0)
    images.update(images.reduce(prepared.batches[0]))
    before = images.thresholds()
    network = QuantizedNetwork(prepared.network.module, "plain", make_scheme(wanted.scheme), {}, images)
    fit_thresholds(prepared, network)
    if form == "faithful":  # as published
        assert images.thresholds() == before
        return
    lower, upper = images.thresholds()
    assert before[0] < lower < upper < before[1]
    tiles = calibration_tiles([photo for _, photo in builtin_photos("calibration")], 50, (96, 96), 4)
    gradients = [tile_gradient(tile) for tile in tiles]
    assert np.mean([gradient < lower for gradient in gradients]) == pytest.approx(0.1, abs=0.03)
    assert np.mean([gradient > upper for gradient in gradients]) == pytest.approx(0.1, abs=0.03)
    # what the demo draws: every photo has smooth and average tiles, the flower before its blurred background busy ones
    factors = {name: routes_of(photo, images, (96, 96), 8) for name, photo in builtin_photos("evaluation")}
    assert factors == {"chelsea": {-1, 0}, "coffee": {-1, 0}, "flower": {-1, 0, 1}}


NETWORKS = """
import torch
from torch import nn

class Net(nn.Module):
    scale, value_range = 2, 1.0
    def __init__(self, wrong):
        super().__init__()
        self.conv = nn.Conv2d(3, 12, 3, padding=1)
        self.wrong = wrong
    def forward(self, x):
        if self.wrong == "raises":
            raise RuntimeError("no such thing\\nand more")
        if self.wrong == "small" and min(x.shape[-2:]) < 24:
            raise ValueError("one value per channel")
        y = self.conv(x)
        if self.wrong == "nan":
            return nn.functional.pixel_shuffle(y * float("nan"), 2)
        if self.wrong == "tuple":
            return y, y
        return nn.functional.pixel_shuffle(y, 2) if self.wrong == "small" else y
"""


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("raises", "fails on a 16x16 image: no such thing$"),
        ("nan", "makes NaN or infinite pixels"),
        ("tuple", "makes tuple of a 16x16 image"),
        ("size", r"makes \(1, 12, 16, 16\) of a 16x16 image, not \(1, 3, 32, 32\); is model.scale right"),
    ],
)
def test_a_network_that_does_not_work_is_found_out_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: str, message: str
) -> None:
    (tmp_path / "wrong_networks.py").write_text(NETWORKS)
    monkeypatch.syspath_prepend(tmp_path)
    mapping = {
        **copy.deepcopy(SMALL),
        "model": {"architecture": "python:wrong_networks:Net", "settings": {"wrong": wrong}},
        "place": {},
    }
    checked = make_recipe(mapping)
    assert isinstance(checked, Recipe)
    with pytest.raises(UserError, match=message):
        prepare(checked)


def test_a_network_is_tried_on_images_as_large_as_those_that_it_is_calibrated_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "deep_networks.py").write_text(NETWORKS)
    monkeypatch.syspath_prepend(tmp_path)
    model = {"architecture": "python:deep_networks:Net", "settings": {"wrong": "small"}}
    checked = make_recipe({**copy.deepcopy(SMALL), "model": model, "place": {}}, overrides=["calibrate.patch=24"])
    assert isinstance(checked, Recipe)
    assert [tuple(batch.shape[-2:]) for batch in prepare(checked).batches] == [(24, 24)] * 3
    with pytest.raises(UserError, match="fails on a 16x16 image: one value per channel"):
        prepare(checked.model_copy(update={"calibrate": checked.calibrate.model_copy(update={"patch": 16})}))


def test_video_networks_are_refused() -> None:
    mapping = {**copy.deepcopy(SMALL), "model": {"architecture": "efficientsci", "settings": {"units": 1}}, "place": {}}
    with pytest.raises(UserError, match="efficientsci"):
        prepare(make_recipe(mapping))  # type: ignore[arg-type]


def test_resolved_paths_are_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("QSCI_HERE", "sub")
    relative = recipe(
        "model.weights=a.pth", "calibrate.images=[$QSCI_HERE/b]", "evaluate=[{set: A, folder: c}, {set: B}]"
    )
    whole = resolve(relative)
    assert whole.model.weights == str(tmp_path / "a.pth")
    assert whole.calibrate.images == [str(tmp_path / "sub" / "b")]
    assert [item.folder for item in whole.evaluate] == [str(tmp_path / "c"), None]
    assert resolve(recipe()).calibrate.images == ["builtin:photos"]
    assert resolve(recipe("model.weights=builtin:x")).model.weights == "builtin:x"


def test_denoisers_are_calibrated_on_noise_and_deblockers_on_jpegs(monkeypatch: pytest.MonkeyPatch) -> None:
    def calibrated(*overrides: str, **changes: Any) -> torch.Tensor:
        load = image_prepare.load_recipe_network
        with monkeypatch.context() as patch:
            patch.setattr(image_prepare, "load_recipe_network", lambda *a: replace(load(*a), **changes))
            return patches(recipe(*overrides))

    clean, noisy, blocky = (calibrated(removes=damage) for damage in ("", "noise", "jpeg"))
    assert 12 < (noisy - clean).std() < 15.5  # some of it is cut off at black and white
    assert 1 < (blocky - clean).std() < 12
    assert torch.equal(noisy, calibrated(removes="noise"))
    assert torch.equal(noisy, noisy.round())
    kept = calibrated("calibrate.degrade=false", removes="noise")
    assert torch.equal(kept, calibrated("calibrate.degrade=false"))

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qsci_plugins.data import bicubic_down, builtin_photos, imresize, write_image
from qsci_plugins.errors import UserError
from qsci_plugins.evaluation.benchmark import BenchmarkImage, BenchmarkSet, ImageResult, evaluate_upscaler, find_set
from qsci_plugins.evaluation.metrics import psnr_y, ssim_y


def photo(seed: int, height: int = 37, width: int = 42) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def make_set(folder: Path, scale: int = 2, names: str = "ba") -> Path:
    (folder / "HR").mkdir(parents=True)
    (folder / f"LR_bicubic/X{scale}").mkdir(parents=True)
    for seed, name in enumerate(names):
        write_image(folder / f"HR/{name}.png", photo(seed))
        write_image(folder / f"LR_bicubic/X{scale}/{name}x{scale}.png", bicubic_down(photo(seed), scale))
    return folder


def enlarge(low: np.ndarray) -> np.ndarray:
    return imresize(low, 2.0)


@pytest.mark.parametrize("place", ["", "benchmark", "sr/benchmark"])
def test_a_set_is_found_in_the_usual_places(tmp_path: Path, place: str) -> None:
    make_set(tmp_path / place / "Tiny")
    found = find_set(tmp_path, "Tiny", 2)
    assert [image.name for image in found.images] == ["a", "b"]
    low, high = found.images[0].load(2)
    np.testing.assert_array_equal(high, photo(1)[:36])
    np.testing.assert_array_equal(low, bicubic_down(photo(1), 2))


def test_given_low_resolution_files_are_used(tmp_path: Path) -> None:
    folder = make_set(tmp_path / "Tiny", names="a")
    write_image(folder / "LR_bicubic/X2/ax2.png", np.full((18, 21, 3), 7, np.uint8))
    low, _ = find_set(tmp_path, "Tiny", 2).images[0].load(2)
    assert (low == 7).all()


def test_low_resolution_is_made_where_there_is_none(tmp_path: Path) -> None:
    make_set(tmp_path / "Tiny")
    (tmp_path / "Photos").mkdir()
    write_image(tmp_path / "Photos/a.png", photo(1))
    for name in ("Tiny", "Photos"):  # another scale than the folder's; only HR, without a folder of that name
        low, high = find_set(tmp_path, name, 3).images[0].load(3)
        np.testing.assert_array_equal(low, bicubic_down(photo(1), 3))
        np.testing.assert_array_equal(high, photo(1)[:36])


def test_a_set_may_be_the_path_of_its_folder(tmp_path: Path) -> None:
    make_set(tmp_path / "elsewhere/Tiny")
    found = find_set(None, str(tmp_path / "elsewhere/Tiny") + "/", 2)
    assert (found.name, len(found.images)) == ("Tiny", 2)


def test_builtin_set_needs_no_folder_and_no_calibration_photo() -> None:
    found = find_set(None, "builtin", 4)
    calibration = {name for name, _ in builtin_photos("calibration")}
    assert {image.name for image in found.images}.isdisjoint(calibration)
    low, high = found.images[0].load(4)
    assert high.shape == (low.shape[0] * 4, low.shape[1] * 4, 3)


def test_unknown_sets_name_the_nearest(tmp_path: Path) -> None:
    make_set(tmp_path / "benchmark/Set5")
    make_set(tmp_path / "Urban100")
    with pytest.raises(UserError, match=r"no set 'set5' .* nearest is 'Set5'; there are Set5, Urban100, builtin"):
        find_set(tmp_path, "set5", 2)
    with pytest.raises(UserError, match=r"no set 'Zoo' in .*; there are"):
        find_set(tmp_path, "Zoo", 2)
    with pytest.raises(UserError, match="needs a data folder"):
        find_set(None, "Set5", 2)
    with pytest.raises(UserError, match="does not exist"):
        find_set(tmp_path / "nothing", "Set5", 2)


def test_incomplete_sets(tmp_path: Path) -> None:
    folder = make_set(tmp_path / "Tiny")
    (folder / "LR_bicubic/X2/bx2.png").unlink()
    with pytest.raises(UserError, match=r"X2 has no bx2.png for .*HR.b\.png"):
        find_set(tmp_path, "Tiny", 2)
    (tmp_path / "Empty").mkdir()
    with pytest.raises(UserError, match="no image in"):
        find_set(tmp_path, "Empty", 2)


def test_files_that_do_not_belong_together(tmp_path: Path) -> None:
    folder = make_set(tmp_path / "Tiny", names="a")
    write_image(folder / "LR_bicubic/X2/ax2.png", np.zeros((17, 21, 3), np.uint8))
    with pytest.raises(UserError, match=r"ax2.png is 21x17, which is not 1/2 of .*a.png \(42x37\)"):
        find_set(tmp_path, "Tiny", 2).images[0].load(2)
    with pytest.raises(UserError, match="is 2x3, too small for a scale of 4"):
        BenchmarkImage("dot", np.zeros((3, 2, 3), np.uint8)).load(4)


def test_means_images_and_extras(tmp_path: Path) -> None:
    images = find_set(make_set(tmp_path / "Tiny").parent, "Tiny", 2)
    seen: list[tuple[int, int, ImageResult]] = []
    bits = iter([4.0, 5.0])
    result = evaluate_upscaler(enlarge, images, lambda *step: seen.append(step), lambda: {"fab": next(bits)})
    assert (result.name, result.scale) == ("Tiny", 2)
    for image, found in zip(images.images, result.images, strict=True):
        low, high = image.load(2)
        assert found.name == image.name
        assert found.psnr_y == psnr_y(enlarge(low), high, 2)
        assert found.ssim == ssim_y(enlarge(low), high, 2)
    assert result.psnr_y == pytest.approx(sum(found.psnr_y for found in result.images) / 2)
    assert result.ssim == pytest.approx(sum(found.ssim for found in result.images) / 2)
    assert [found.extras for found in result.images] == [{"fab": 4.0}, {"fab": 5.0}]
    assert result.extras == {"fab": 4.5}
    assert seen == [(1, 2, result.images[0]), (2, 2, result.images[1])]
    assert json.loads(json.dumps(asdict(result)))["images"][1]["extras"]["fab"] == 5.0
    assert evaluate_upscaler(enlarge, images).extras == {}


def test_grey_images_are_measured_as_three_equal_channels(tmp_path: Path) -> None:
    (tmp_path / "Grey").mkdir()
    Image.fromarray(photo(0)[..., 0]).save(tmp_path / "Grey/g.png")
    grey = photo(0)[..., :1].repeat(3, 2)
    expected = evaluate_upscaler(enlarge, BenchmarkSet("Grey", 2, (BenchmarkImage("g", grey),)))
    assert evaluate_upscaler(enlarge, find_set(tmp_path, "Grey", 2)) == expected


def test_a_network_of_another_scale_and_images_too_small_to_measure() -> None:
    images = BenchmarkSet("Tiny", 2, (BenchmarkImage("a", photo(0)),))
    with pytest.raises(UserError, match="made 63x54 pixels of a's 21x18, but the set 'Tiny' is for a scale of 2"):
        evaluate_upscaler(lambda low: imresize(low, 3.0), images)
    small = BenchmarkSet("Tiny", 2, (BenchmarkImage("s", photo(0, 14, 14)),))
    with pytest.raises(UserError, match="cannot measure s of set 'Tiny': SSIM"):
        evaluate_upscaler(enlarge, small)

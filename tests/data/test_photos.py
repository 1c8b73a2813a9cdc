from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from qsci_plugins.data import bicubic_down, builtin_photos, calibration_patches, write_image
from qsci_plugins.data.photos import calibration_tiles
from qsci_plugins.errors import UserError


def photo(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def contains(image: np.ndarray, patch: np.ndarray) -> bool:
    windows = np.lib.stride_tricks.sliding_window_view(image, patch.shape[1:], axis=(0, 1))
    return bool((windows == patch).all(axis=(2, 3, 4)).any())


def test_builtin_photos_are_large_colour_photos() -> None:
    photos = builtin_photos()
    assert len({name for name, _ in photos}) == len(photos) == 8
    for name, image in photos:
        assert image.dtype == np.uint8, name
        assert min(image.shape[:2]) >= 300, name
        assert (image[..., 0] != image[..., 1]).mean() > 0.2, name


def test_calibration_and_evaluation_share_no_photo() -> None:
    calibration = {name for name, _ in builtin_photos("calibration")}
    evaluation = {name for name, _ in builtin_photos("evaluation")}
    assert calibration
    assert evaluation
    assert calibration.isdisjoint(evaluation)
    assert calibration | evaluation == {name for name, _ in builtin_photos("all")}


def test_missing_package_photo_says_what_to_reinstall(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qsci_plugins.data.photos.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"scikit-image: pip install .*train"):
        builtin_photos()


@pytest.mark.parametrize("scale", [2, 4])
def test_patches_are_parts_of_the_reduced_photo(scale: int) -> None:
    high = photo(23 * scale + 1, 31 * scale)
    patches = calibration_patches([high], 6, 12, scale, seed=3)
    assert patches.shape == (6, 3, 12, 12)
    assert patches.dtype == np.uint8
    low = bicubic_down(high, scale).transpose(2, 0, 1)
    for patch in patches:
        assert contains(low.transpose(1, 2, 0), patch)
    assert len({patch.tobytes() for patch in patches}) > 3


def test_without_degradation_the_photos_are_cut_as_they_are() -> None:
    low = photo(20, 30)
    for patch in calibration_patches([low], 3, 8, 4, degrade=False):
        assert contains(low, patch)


def test_seed_decides() -> None:
    photos = [photo(64, 64, 0), photo(48, 80, 1)]
    first = calibration_patches(photos, 5, 8, 2, seed=1)
    np.testing.assert_array_equal(calibration_patches(photos, 5, 8, 2, seed=1), first)
    assert (calibration_patches(photos, 5, 8, 2, seed=2) != first).any()


def test_photos_give_patches_by_their_area_in_mixed_order() -> None:
    photos = [np.full((size, 20, 3), value, np.uint8) for value, size in ((1, 20), (2, 60), (3, 7), (4, 120))]
    drawn = calibration_patches(photos, 40, 8, 1)[:, 0, 0, 0].tolist()
    shares = [drawn.count(value) for value in (1, 2, 3, 4)]
    assert shares[2] == 0  # too small for a patch
    assert np.abs(np.array(shares) - np.array([4, 12, 0, 24])).max() <= 1
    assert drawn != sorted(drawn)


def test_a_photo_of_exactly_one_patch_fits() -> None:
    high = photo(32, 32)
    patches = calibration_patches([high], 2, 16, 2)
    np.testing.assert_array_equal(patches[1].transpose(1, 2, 0), bicubic_down(high, 2))


def test_files_give_what_their_arrays_give_and_only_the_chosen_are_read(tmp_path: Path) -> None:
    arrays: list[np.ndarray | Path] = [photo(40, 56, 0), photo(60, 44, 1), photo(10, 10, 2)]
    files: list[np.ndarray | Path] = []
    for index, image in enumerate(arrays):
        file = tmp_path / f"{index}.png"
        write_image(file, np.asarray(image))
        files.append(file)
    content = (tmp_path / "2.png").read_bytes()
    (tmp_path / "2.png").write_bytes(content[:60])  # a header with nothing behind, of a photo that is too small
    np.testing.assert_array_equal(calibration_patches(files, 7, 12, 2), calibration_patches(arrays, 7, 12, 2))


def test_no_photo_large_enough(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="need 384x384 pixels, the best of 2 photos has 300x200"):
        calibration_patches([photo(200, 300), photo(100, 600)], 4, 96, 4)
    with pytest.raises(UserError, match="of 0 photos"):
        calibration_patches([], 4, 96, 4)


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        calibration_patches([photo(8, 8)], 0, 4, 2)
    with pytest.raises(ValueError, match="float64"):
        calibration_patches([photo(8, 8) / 255], 1, 4, 2)


def test_tiles_are_parts_of_the_reduced_photo_or_the_whole() -> None:
    photos = [photo for _, photo in builtin_photos("calibration")][:2]
    low = [bicubic_down(photo, 4) for photo in photos]
    tiles = calibration_tiles(photos, 6, (180, 100), 4)
    assert len(tiles) == 6
    for tile in tiles:  # the photos are lower than a tile, and wider
        assert tile.shape in {(image.shape[0], 100, 3) for image in low}
        assert any(
            np.array_equal(tile, image[:, left : left + 100]) for image in low for left in range(image.shape[1] - 99)
        )
    assert len(calibration_tiles(photos, 6, (180, 320), 4)) == 2, "the whole photo is the same every time"
    assert len(calibration_tiles(photos, 1, (32, 32), 4)) == 1
    assert all(np.array_equal(a, b) for a, b in zip(tiles, calibration_tiles(photos, 6, (180, 100), 4), strict=True))

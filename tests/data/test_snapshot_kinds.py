"""Measurements as cameras and programs store them: depths, files, names and orders of dimensions, by value."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.io import savemat

from qsci_plugins.data.snapshot_files import read_mask, read_snapshots
from qsci_plugins.data.snapshot_sources import open_source, source_paths
from qsci_plugins.data.snapshot_white import white_level
from qsci_plugins.data.snapshots import mask_sum, measure, random_mask
from qsci_plugins.errors import UserError

T, H, W = 8, 40, 56
MASK = random_mask(T, H, W)


def scene(brightest: float = 1.0) -> np.ndarray:
    """Frames (T,H,W) of a smooth scene that reaches `brightest` in a few places."""
    y, x = np.mgrid[:H, :W]
    frames = [0.5 + 0.5 * np.sin(0.2 * x + 0.03 * t) * np.cos(0.15 * y) for t in range(T)]
    return (np.stack(frames) * brightest).astype(np.float32)


MEASURED = measure(scene(), MASK)


@pytest.mark.parametrize(
    ("stored", "level"),
    [
        ((MEASURED / MEASURED.max() * 4095).astype(np.uint16), 4095 / MEASURED.max()),
        ((MEASURED / T * 4095).astype(np.uint16), 4095 / T),
        ((MEASURED * 4095).astype(np.uint16), 4095),
        ((MEASURED * 16383 / T).astype(np.uint16), 16383 / T),
        (MEASURED / MEASURED.max(), 1 / MEASURED.max()),
        ((MEASURED / MEASURED.max()).astype(np.float32), 1 / MEASURED.max()),
        (MEASURED.astype(np.float64), 1),
        ((MEASURED * 255).astype(np.uint16), 255),
    ],
    ids=[
        "12 bits to the brim",
        "12 bits",
        "12-bit frames",
        "14 bits",
        "to 1",
        "to 1, f32",
        "0..1",
        "8-bit frames",
    ],
)
def test_the_scene_has_its_brightness(tmp_path: Path, stored: np.ndarray, level: float) -> None:
    np.savez(tmp_path / "a.npz", meas=stored, mask=MASK)
    found = read_snapshots(tmp_path / "a.npz")
    assert found.white == pytest.approx(level, rel=0.13)
    np.testing.assert_allclose(found.measurements[0] / mask_sum(MASK), MEASURED / mask_sum(MASK), atol=0.14)
    assert found.white_found is not None
    assert f"full brightness is {found.white:g}" in found.white_found.sentence("a")


def test_what_is_implausible_is_said() -> None:
    dark = white_level(0.2 * MEASURED[None], np.dtype("f4"), MASK)
    assert dark.level == 1
    assert "implausible: the brightest pixels have 0.2" in dark.sentence("a")
    given_ = white_level(MEASURED[None] * 4095, np.dtype("u2"), MASK, 65535.0 * 2)
    assert "implausible" in given_.sentence("a")
    assert white_level(MEASURED[None], np.dtype("f4"), MASK, 1.0).sentence("a") == "a: full brightness is 1 (given)"
    assert "black" in white_level(0 * MEASURED[None], np.dtype("f4"), MASK).doubt


@pytest.mark.parametrize("kind", ["npy", "npz", "tif", "png", "mat"])
@pytest.mark.parametrize("mask_kind", ["npy", "npz", "tif", "folder", "mat"])
def test_every_kind_of_file(tmp_path: Path, kind: str, mask_kind: str) -> None:
    levels = (MEASURED * 4095 / T).astype(np.uint16)
    file, camera = tmp_path / f"m.{kind}", tmp_path / f"camera.{mask_kind}"
    bits = (255 * MASK).astype(np.uint8)
    if mask_kind == "folder":
        camera.mkdir()
        for index, layer in enumerate(bits):
            Image.fromarray(layer).save(camera / f"{index:02}.png")
    for path, name, array in ((file, "meas", levels), (camera, "mask", bits)):
        if path.suffix == ".npy":
            np.save(path, array)
        elif path.suffix == ".npz":
            np.savez(path, **{name: array})
        elif path.suffix == ".tif":
            tifffile.imwrite(path, array, photometric="minisblack")
        elif path.suffix == ".png":
            Image.fromarray(array).save(path)
        elif path.suffix == ".mat":
            savemat(path, {name: array if array.ndim == 2 else array.transpose(1, 2, 0)})
    mask = read_mask(camera, frames=T)
    np.testing.assert_array_equal(mask, MASK)
    source = open_source(source_paths([file])[0], mask)
    [(measurement, truth)] = source.pairs()
    assert truth is None
    np.testing.assert_allclose(measurement, levels / source.white.level, rtol=1e-5)


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 2, 0), (0, 2, 1)])
@pytest.mark.parametrize("suffix", ["mat", "npz"])
def test_a_mask_in_another_order_is_found(tmp_path: Path, order: tuple[int, int, int], suffix: str) -> None:
    variables = {"meas": MEASURED, "mask": MASK.transpose(order)}
    if suffix == "mat":
        savemat(tmp_path / "a.mat", variables)
    elif order == (0, 2, 1):
        variables["mask"] = MASK.transpose(2, 1, 0)
    if suffix == "npz":
        np.savez(tmp_path / "a.npz", **variables)
    found = read_snapshots(tmp_path / f"a.{suffix}")
    np.testing.assert_array_equal(found.mask, MASK)
    np.testing.assert_allclose(found.measurements[0], MEASURED, rtol=1e-5)


def test_a_mask_on_its_side_is_refused_by_shape(tmp_path: Path) -> None:
    savemat(tmp_path / "a.mat", {"meas": MEASURED, "mask": MASK.transpose(2, 1, 0)})
    with pytest.raises(UserError, match=f"meas is {W}x{H} pixels, the mask"):
        read_snapshots(tmp_path / "a.mat")
    np.save(tmp_path / "mask.npy", MASK)
    with pytest.raises(UserError, match=r"mask is 8x40x56, and the network reconstructs 10 frames"):
        read_mask(tmp_path / "mask.npy", frames=10)


def test_several_measurements_in_both_orders(tmp_path: Path) -> None:
    both = np.stack([MEASURED, MEASURED / 2])
    for name, array in (("first", both), ("last", both.transpose(1, 2, 0))):
        np.save(tmp_path / f"{name}.npy", array)
        found = read_snapshots(tmp_path / f"{name}.npy", MASK)
        np.testing.assert_allclose(found.measurements, both, rtol=1e-5)


def test_other_names(tmp_path: Path) -> None:
    savemat(tmp_path / "a.mat", {"Y": MEASURED, "M": MASK.transpose(1, 2, 0), "X": scene().transpose(1, 2, 0)})
    found = read_snapshots(tmp_path / "a.mat", names={"meas": "Y", "mask": "M", "frames": "X"})
    np.testing.assert_array_equal(found.mask, MASK)
    np.testing.assert_allclose(found.measurements[0], MEASURED, rtol=1e-5)
    np.testing.assert_allclose(found.frames[0], scene(), rtol=1e-5)
    with pytest.raises(UserError, match=r"neither a measurement \(meas\) .* Y \(40x56\).*--keys"):
        read_snapshots(tmp_path / "a.mat")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(["npy", "npz", "tif", "png"]),
    st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), max_size=4),
    st.integers(0, 4000),
    st.sampled_from([np.uint8, np.uint16, np.float32, np.complex64, np.bool_]),
)
def test_damaged_files_are_read_or_refused(
    tmp_path: Path, kind: str, changes: list[tuple[int, int]], end: int, dtype: Any
) -> None:
    file = tmp_path / f"a.{kind}"
    array = (MEASURED * 10).astype(np.uint8 if kind == "png" else dtype)
    if kind == "npy":
        np.save(file, array)
    elif kind == "npz":
        np.savez(file, meas=array)
    elif kind == "tif":
        tifffile.imwrite(file, array)
    else:
        Image.fromarray(array).save(file)
    content = bytearray(file.read_bytes())
    for position, value in changes:
        content[position % len(content)] = value
    file.write_bytes(content[: max(1, len(content) - end % len(content))] if end % 3 == 0 else content)
    try:
        found = read_snapshots(file, MASK)
    except UserError as error:
        assert str(file) in str(error)  # noqa: PT017
        return
    assert np.isfinite(found.measurements).all()

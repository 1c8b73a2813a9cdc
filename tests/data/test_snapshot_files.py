"""The published .mat layouts, and every way in which a file can be wrong."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from golden import data_folder
from scipy.io import savemat

from qsci_plugins.data.matlab import mat_keys, read_mat
from qsci_plugins.data.snapshot_files import FRAME_KEYS, read_mask, read_snapshots
from qsci_plugins.data.snapshots import measure, random_mask
from qsci_plugins.errors import UserError

T, H, W = 4, 10, 12
MASK = random_mask(T, H, W)
FRAMES = np.random.default_rng(0).integers(0, 256, (2 * T, H, W), np.uint8)
#: as published: the measurements of 8-bit frames
MEAS = np.stack([measure(FRAMES[i : i + T].astype(float), MASK) for i in (0, T)], 2).astype(np.uint16)


def v5(file: Path, **variables: Any) -> Path:
    savemat(file, variables)
    return file


def v73(file: Path, **variables: Any) -> Path:
    """As MATLAB writes it: a header of 512 bytes, then HDF5 with the dimensions reversed."""
    with h5py.File(file, "w", userblock_size=512) as content:
        for name, array in variables.items():
            content[name] = np.asarray(array).T
    with file.open("r+b") as raw:
        raw.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM")
    return file


def hwt(frames: np.ndarray) -> np.ndarray:
    return frames.transpose(1, 2, 0)


@pytest.mark.parametrize("write", [v5, v73])
def test_both_kinds_of_file_read_alike(tmp_path: Path, write: Any) -> None:
    file = write(tmp_path / "scene.mat", orig=hwt(FRAMES), meas=MEAS, mask=hwt(MASK).astype(np.uint8))
    assert mat_keys(file) == {"orig": (H, W, 8), "meas": (H, W, 2), "mask": (H, W, T)}
    scene = read_snapshots(file)
    assert scene.white == 255
    np.testing.assert_array_equal(scene.mask, MASK)
    assert scene.frames is not None
    np.testing.assert_allclose(scene.frames, FRAMES.reshape(2, T, H, W) / 255, atol=1e-6)
    np.testing.assert_allclose(scene.measurements, MEAS.transpose(2, 0, 1) / 255, atol=1e-5)
    assert read_mask(file).dtype == scene.measurements.dtype == np.float32


@pytest.mark.parametrize("key", FRAME_KEYS)
def test_frames_without_a_measurement_are_measured(tmp_path: Path, key: str) -> None:
    odd = np.concatenate([FRAMES, FRAMES[:1]])  # what is left over of four frames is dropped
    file = v5(tmp_path / "scene.mat", **{key: hwt(odd).astype(float)})
    scene = read_snapshots(file, MASK)
    np.testing.assert_allclose(scene.measurements, MEAS.transpose(2, 0, 1) / 255, atol=1e-5)
    assert scene.frames is not None
    assert scene.frames.shape == (2, T, H, W)


@pytest.mark.parametrize("write", [v5, v73])
def test_colour_is_measured_through_a_bayer_filter(tmp_path: Path, write: Any) -> None:
    color = np.random.default_rng(1).integers(0, 256, (H, W, 3, T), np.uint8)
    scene = read_snapshots(write(tmp_path / "scene.mat", orig=color), MASK)
    assert scene.frames is not None
    assert scene.frames.shape == (1, 3, T, H, W)
    np.testing.assert_allclose(scene.frames[0, 2, 1], color[:, :, 2, 1] / 255, atol=1e-6)
    np.testing.assert_allclose(scene.measurements[0], measure(scene.frames[0], MASK))


@pytest.mark.parametrize(
    ("measurement", "white"),
    [
        (MEAS / 255, 1.0),
        (MEAS.astype(float), 255.0),
        (MEAS * 257.0, 65535.0),
        ((MEAS.astype(np.uint32) * 65535 // MEAS.max()).astype(np.uint16), 65535 * 2 / T),
        (MEAS.astype(np.uint16), 255.0),
        ((MEAS // 4).astype(np.uint8), 255 * 2 / T),
    ],
    ids=["0..1", "0..255", "0..65535", "16-bit camera", "8-bit frames", "8-bit camera"],
)
def test_the_range_is_told_from_type_and_values(tmp_path: Path, measurement: np.ndarray, white: float) -> None:
    scene = read_snapshots(v5(tmp_path / "m.mat", meas=measurement), MASK)
    assert scene.white == pytest.approx(white)
    assert scene.frames is None
    np.testing.assert_allclose(scene.measurements[1], measurement[..., 1] / white, rtol=1e-5)
    assert read_snapshots(tmp_path / "m.mat", MASK, white=100.0).white == 100.0


def test_one_measurement_may_have_two_dimensions(tmp_path: Path) -> None:
    assert read_snapshots(v5(tmp_path / "m.mat", meas=MEAS[..., 0]), MASK).measurements.shape == (1, H, W)


def test_a_pixel_that_never_opens_is_no_error(tmp_path: Path) -> None:
    mask = MASK.copy()
    mask[:, 3, 5] = 0
    mask[:, :, 2] = 0
    scene = read_snapshots(v5(tmp_path / "m.mat", orig=hwt(FRAMES), mask=hwt(mask)))
    assert not scene.measurements[:, :, 2].any()


def test_masks_of_a_camera_are_real_numbers(tmp_path: Path) -> None:
    weights = MASK * np.float32(0.7) + np.float32(0.1)
    np.testing.assert_array_equal(read_mask(v5(tmp_path / "a.mat", mask=hwt(weights))), weights)
    np.testing.assert_array_equal(read_mask(v5(tmp_path / "b.mat", mask=hwt(MASK * 255).astype(np.uint8))), MASK)


def holed(value: float) -> np.ndarray:
    array = MEAS.astype(float)
    array[2, 3, 1] = value
    return array


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"meas": MEAS[:, :-1], "mask": hwt(MASK)}, "meas is 11x10 pixels, the mask 12x10"),
        ({"orig": hwt(FRAMES)[:-1], "mask": hwt(MASK)}, "orig is 12x9 pixels, the mask 12x10"),
        ({"meas": MEAS, "orig": hwt(FRAMES)[..., :7], "mask": hwt(MASK)}, "orig has 7 frames, but 2 measurements .* 8"),
        ({"orig": hwt(FRAMES)[..., :3], "mask": hwt(MASK)}, "orig has 3 frames, fewer than the 4"),
        ({"meas": MEAS}, "no mask .* give the camera's with --mask"),
        ({"meas": MEAS, "mask": 0 * hwt(MASK)}, "mask is all zero"),
        ({"meas": MEAS, "mask": hwt(MASK) - 0.5}, "mask has negative values"),
        ({"meas": MEAS, "mask": hwt(MASK) * 3}, "mask goes up to 3"),
        ({"meas": MEAS, "mask": hwt(MASK)[..., None]}, "mask is 10x12x4x1; it should be height x width x frames"),
        ({"video": hwt(FRAMES), "x": 1.0}, r"neither a measurement \(meas\) nor frames .*video \(10x12x8\), x \(1x1\)"),
        ({"meas": holed(np.nan), "mask": hwt(MASK)}, r"meas has 1 values .* NaN .* the first at \(3, 4, 2\)"),
        ({"meas": holed(np.inf), "mask": hwt(MASK)}, "NaN or infinite"),
        (
            {"meas": MEAS * 1e6, "mask": hwt(MASK)},
            "more than 16-bit frames through this mask can give; tell with --white",
        ),
        ({"meas": MEAS + 1j, "mask": hwt(MASK)}, "meas holds complex numbers"),
        ({"meas": "text", "mask": hwt(MASK)}, "meas holds no numbers"),
        ({"meas": MEAS[..., None], "mask": hwt(MASK)}, "meas is 10x12x2x1"),
        ({"orig": np.zeros((H, W, 2, T)), "mask": hwt(MASK)}, "orig is 10x12x2x4"),
        ({"meas": {"a": 1}, "mask": hwt(MASK)}, "meas holds no numbers"),
    ],
)
def test_what_is_wrong_in_a_file_is_said(tmp_path: Path, variables: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_snapshots(v5(tmp_path / "scene.mat", **variables))


@pytest.mark.parametrize("write", [v5, v73])
def test_cut_off_and_damaged_files(tmp_path: Path, write: Any) -> None:
    file = write(tmp_path / "scene.mat", orig=hwt(FRAMES), mask=hwt(MASK))
    content = file.read_bytes()
    for length in (0, 3, 100, 127, 140, 520, 600, len(content) // 2, len(content) - 300):
        file.write_bytes(content[:length])
        with pytest.raises(UserError, match=r"damaged|empty file|holds neither|holds no mask"):
            read_snapshots(file)
    generator = np.random.default_rng(0)
    for _ in range(60):
        flipped = bytearray(content)
        for position in generator.integers(0, len(content), 3):
            flipped[position] ^= int(generator.integers(1, 256))
        file.write_bytes(flipped)
        try:
            scene = read_snapshots(file)  # a damaged pixel cannot be noticed
            assert np.isfinite(scene.measurements).all()
        except UserError:
            pass


def test_claimed_sizes_are_checked_before_anything_is_allocated(tmp_path: Path) -> None:
    new = v73(tmp_path / "new.mat", mask=hwt(MASK))
    with h5py.File(new, "r+") as content:  # nothing of it is stored
        content.create_dataset("meas", (100_000, 100_000, 8), "f8", chunks=(100, 100, 1))
    old = v5(tmp_path / "old.mat", meas=MEAS, mask=hwt(MASK))
    raw, sizes = old.read_bytes(), np.array(MEAS.shape, "<i4").tobytes()
    assert raw.count(sizes) == 1
    old.write_bytes(raw.replace(sizes, np.array([100_000, 100_000, 2], "<i4").tobytes()))
    for file in (old, new):
        with pytest.raises(UserError, match=r"meas says that it is \d+x100000x\d+, more than the limit"):
            read_snapshots(file)


def test_no_mat_file_at_all(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read .*No such file"):
        read_snapshots(tmp_path / "missing.mat")
    (tmp_path / "text.mat").write_text("frames\n" * 100)
    with pytest.raises(UserError, match=r"no \.mat file"):
        read_snapshots(tmp_path / "text.mat")
    with pytest.raises(UserError, match="holds no images"):
        read_snapshots(tmp_path)
    with pytest.raises(UserError, match=r"no mask .* it has meas \(10x12x2\)"):
        read_mask(v5(tmp_path / "m.mat", meas=MEAS))
    if os.geteuid():
        (tmp_path / "m.mat").chmod(0)
        with pytest.raises(UserError, match="Permission"):
            read_mat(tmp_path / "m.mat", ("meas",))


def test_real_measurements_load() -> None:
    for file in sorted((data_folder() / "sci" / "real").glob("*.mat")):
        scene = read_snapshots(file, random_mask(10, 512, 512))
        assert scene.white == 51  # of 255: as published, half of the ten frames are open
        assert scene.measurements.shape[1:] == (512, 512)


def test_no_other_file_is_read_through_hdf5(tmp_path: Path) -> None:
    mask = hwt(MASK)
    np.arange(mask.size, dtype=np.uint8).tofile(tmp_path / "secret")
    v73(tmp_path / "other.mat", meas=MEAS)
    for kind in ("external", "virtual", "external link", "soft link"):
        file = v73(tmp_path / f"{kind}.mat", mask=mask)
        with h5py.File(file, "r+") as content:
            if kind == "external":
                content.create_dataset("meas", (12, 10), "u1", external=[(str(tmp_path / "secret"), 0, 120)])
            elif kind == "virtual":
                layout = h5py.VirtualLayout((12, 10), "f8")
                content.create_virtual_dataset("meas", layout)
            else:
                there = h5py.ExternalLink("other.mat", "/meas") if kind == "external link" else h5py.SoftLink("/mask")
                content["meas"] = there
        with pytest.raises(UserError, match=r"meas (lies in other files|is a link to elsewhere)"):
            read_snapshots(file)


def test_an_archive_says_how_large_its_arrays_are_before_they_are_read(tmp_path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (100, 10**4, 10**4)})
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as file:
        file.writestr("meas.npy", header.getvalue())
        file.writestr("mask.npy", header.getvalue())
    with pytest.raises(UserError, match="says that it is 100x10000x10000, more than the limit of 4 GiB"):
        read_snapshots(tmp_path / "x.npz")


def test_a_mask_of_one_frame_and_frames_of_another_mask(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="of one frame, and a measurement is of several"):
        read_snapshots(v5(tmp_path / "flat.mat", meas=MEAS, mask=hwt(MASK)[..., 0]))
    count = len(MASK) + 1
    orig = np.zeros((*MEAS.shape[:2], count * MEAS.shape[2]), np.uint8)
    with pytest.raises(UserError, match=rf"orig has {count} frames for each measurement, the mask {len(MASK)}"):
        read_snapshots(v5(tmp_path / "other.mat", meas=MEAS, mask=hwt(MASK), orig=orig))

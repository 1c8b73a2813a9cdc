from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import loadmat

from qsci_plugins.data.frame_writers import FORMATS, frame_writer, to_levels
from qsci_plugins.data.sequences import read_sequence
from qsci_plugins.errors import UserError


@pytest.fixture(params=["grey", "colour"])
def frames(request: pytest.FixtureRequest) -> np.ndarray:
    """Six smooth frames that go a little out of 0..1."""
    y, x, t = np.mgrid[:32, :48, :6] / 40
    video = np.stack([np.sin(3 * x + shift + t) + 0.3 * y for shift in (0, 1, 2)]).transpose(0, 3, 1, 2) * 0.6 + 0.5
    return (video[0] if request.param == "grey" else video).astype(np.float32)


def halves(frames: np.ndarray) -> list[np.ndarray]:
    return [frames[..., :3, :, :], frames[..., 3:, :, :]]


def test_png_is_exact(frames: np.ndarray, tmp_path: Path) -> None:
    (tmp_path / "scene").mkdir()
    for name in ("00009.png", "2024-05 holiday.png", "7.png"):
        (tmp_path / "scene" / name).touch()
    with frame_writer(tmp_path / "scene", "png") as writer:
        for part in halves(frames):
            writer.write(part)
    for theirs in ("2024-05 holiday.png", "7.png"):
        (tmp_path / "scene" / theirs).unlink()
    assert sorted(file.name for file in (tmp_path / "scene").iterdir()) == [f"0000{i}.png" for i in range(1, 7)]
    color = frames.ndim == 4
    with Image.open(tmp_path / "scene" / "00001.png") as image:
        assert image.mode == ("RGB" if color else "L")
    assert np.array_equal(read_sequence(tmp_path / "scene", color=color), to_levels(frames))


def test_mat_keeps_every_value(frames: np.ndarray, tmp_path: Path) -> None:
    with frame_writer(tmp_path / "scene", "mat", extras=lambda: {"psnr": 30.5}) as writer:
        for part in halves(frames):
            writer.write(part)
    content = loadmat(tmp_path / "scene.mat")
    assert content["psnr"].item() == 30.5
    expected = frames.transpose(1, 2, 0) if frames.ndim == 3 else frames.transpose(2, 3, 0, 1)
    assert np.array_equal(content["recon"], expected)


@pytest.mark.parametrize("format_", ["mp4", "gif"])
def test_clips_show_the_frames(frames: np.ndarray, tmp_path: Path, format_: str) -> None:
    with frame_writer(tmp_path / "scene", format_, rate=12.5) as writer:
        for part in halves(frames):
            writer.write(part)
    seen = read_sequence(tmp_path / f"scene.{format_}", color=True)
    levels = to_levels(frames)
    levels = levels if levels.ndim == 4 else levels[..., None].repeat(3, 3)
    assert seen.shape == levels.shape
    assert np.abs(seen.astype(float) - levels).mean() < 6


@pytest.mark.parametrize("format_", FORMATS)
def test_a_failure_leaves_no_file_behind(tmp_path: Path, format_: str) -> None:
    def fail() -> None:
        with frame_writer(tmp_path / "scene", format_) as writer:
            writer.write(np.zeros((2, 16, 16), np.float32))
            raise UserError("the network failed")

    with pytest.raises(UserError, match="the network failed"):
        fail()
    assert not [file for file in tmp_path.iterdir() if file.is_file()]


@pytest.mark.parametrize("format_", FORMATS)
def test_where_nothing_can_be_written(tmp_path: Path, format_: str) -> None:
    (tmp_path / "file").touch()

    def write() -> None:
        with frame_writer(tmp_path / "file" / "scene", format_) as writer:
            writer.write(np.zeros((2, 16, 16), np.float32))

    with pytest.raises(UserError, match=r"cannot (write|make)"):
        write()


def test_levels_are_rounded_and_clamped() -> None:
    assert to_levels(np.array([[[-1.0, 0.4999 / 255, 0.5001 / 255, 2.0]]])).tolist() == [[[0, 0, 1, 255]]]

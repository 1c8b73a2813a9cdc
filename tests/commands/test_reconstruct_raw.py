"""Raw measurements through a pipe, and what a run says about their brightness."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat
from video_folder import Strided, exported

from qsci_plugins.cli import main
from qsci_plugins.commands.reconstruct_raw import reconstruct_raw
from qsci_plugins.data.frame_writers import to_levels
from qsci_plugins.data.snapshots import measure, random_mask
from qsci_plugins.errors import UserError
from qsci_plugins.openvino.reconstructor import Reconstructor

T, H, W = 3, 28, 32
MASK = random_mask(T, H, W)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(tmp_path_factory.mktemp("sci") / "model", {0: Strided()}, T)


def measured(count: int) -> np.ndarray:
    frames = np.random.default_rng(0).random((count, T, H, W), np.float32)
    return np.stack([measure(each, MASK) for each in frames])


@pytest.mark.parametrize(
    ("pixels", "dtype", "white"), [("gray", "u1", 60.0), ("gray16le", "<u2", 4095.0), ("gray16be", ">u2", 900.0)]
)
def test_measurements_in_frames_out(model: Path, pixels: str, dtype: str, white: float) -> None:
    levels = (measured(3) * white).astype(dtype)
    target = io.BytesIO()
    assert reconstruct_raw(model, io.BytesIO(levels.tobytes()), target, pixels, mask=MASK, white=white) == 3
    reconstructor = Reconstructor(model, MASK, precision="auto")
    expected = [to_levels(reconstructor.reconstruct(each.astype(np.float32) / np.float32(white))) for each in levels]
    assert target.getvalue() == np.stack(expected).tobytes()


def test_what_ends_too_soon_or_has_no_mask(model: Path) -> None:
    with pytest.raises(UserError, match=r"inside measurement 2: 100 of 896 bytes"):
        reconstruct_raw(model, io.BytesIO(bytes([9]) * 996), io.BytesIO(), mask=MASK)
    with pytest.raises(UserError, match="--mask FILE"):
        reconstruct_raw(model, io.BytesIO(), io.BytesIO())
    with pytest.raises(TypeError, match="'wite'"):
        reconstruct_raw(model, io.BytesIO(), io.BytesIO(), wite=1.0)


def test_the_brightness_that_was_taken_is_said(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    savemat(tmp_path / "a.mat", {"Y": (measured(1)[0] * 4095).astype(np.uint16), "M": MASK.transpose(1, 2, 0)})
    arguments = [
        "reconstruct",
        str(model),
        str(tmp_path / "a.mat"),
        "-o",
        str(tmp_path / "out"),
        "--keys",
        "meas=Y,mask=M",
    ]
    assert main(arguments) == 0
    printed = capsys.readouterr()
    assert "a: full brightness is 4095 (estimated from measurement / mask sum); --white VALUE overrides" in printed.err
    assert main([*arguments, "--force", "--white", "4095"]) == 0
    assert "a: full brightness is 4095 (given)" in capsys.readouterr().err
    assert main([*arguments[:-1], "meas"]) == 2
    assert main([*arguments[:-1], "frame=Z", "--force"]) == 2
    assert "what may have another name is meas, mask, frames" in capsys.readouterr().err

"""The known PSNR of real checkpoints, read from their tensors by `load_network`."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from qsci_plugins.architectures.registry import load_network
from qsci_plugins.evaluation import evaluate_upscaler, find_set

_DATA = Path(os.environ.get("QSCI_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))

#: file, architecture, scale, mean PSNR-Y on Set5 and Set14
_ZOO = [
    ("edsr8_x2.pt", "edsr", 2, 37.80, 33.37),
    ("srresnet8_x4.pt", "srresnet", 4, 31.88, 28.43),
    ("carn_m.pth", "carn", 4, 31.88, 28.42),
    ("carn_m.pth", "carn", 2, 37.68, 33.30),
]


@pytest.mark.slow
@pytest.mark.skipif(not _DATA.is_dir(), reason=f"no shared data at {_DATA}; set QSCI_DATA")
@pytest.mark.parametrize(("file", "architecture", "scale", "set5", "set14"), _ZOO)
def test_a_real_checkpoint_has_its_known_psnr(
    file: str, architecture: str, scale: int, set5: float, set14: float
) -> None:
    network = load_network(None, _DATA / "weights" / file, scale=scale)
    assert network.architecture == architecture
    peak = network.value_range

    @torch.inference_mode()
    def upscale(low: np.ndarray) -> np.ndarray:
        output = network.module(torch.from_numpy(low).permute(2, 0, 1)[None] * (peak / 255))[0] * (255 / peak)
        return output.clamp(0, 255).round().to(torch.uint8).permute(1, 2, 0).numpy()

    for name, expected in (("Set5", set5), ("Set14", set14)):
        assert evaluate_upscaler(upscale, find_set(_DATA, name, scale)).psnr_y == pytest.approx(expected, abs=0.006)

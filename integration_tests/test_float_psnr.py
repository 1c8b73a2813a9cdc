"""The known PSNR of a float network, which only comes out with the right LR, luma, rounding and border."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from qsci_plugins.architectures.sr.edsr import EDSR
from qsci_plugins.evaluation import evaluate_upscaler, find_set

_DATA = Path(os.environ.get("QSCI_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))


@pytest.mark.slow
@pytest.mark.skipif(not _DATA.is_dir(), reason=f"no shared data at {_DATA}; set QSCI_DATA")
@pytest.mark.parametrize(("name", "expected"), [("Set5", 37.80), ("Set14", 33.37)])
def test_edsr_of_eight_blocks_has_its_known_psnr(name: str, expected: float) -> None:
    model = EDSR(blocks=8, width=64, scale=2, mean_shift=False).eval()
    model.load_state_dict(torch.load(_DATA / "weights/edsr8_x2.pt", weights_only=True))

    @torch.inference_mode()
    def upscale(low: np.ndarray) -> np.ndarray:
        output = model(torch.from_numpy(low).permute(2, 0, 1)[None].float())[0]
        return output.clamp(0, 255).round().to(torch.uint8).permute(1, 2, 0).numpy()

    result = evaluate_upscaler(upscale, find_set(_DATA, name, 2))
    assert result.psnr_y == pytest.approx(expected, abs=0.005)

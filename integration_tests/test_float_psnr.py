"""The known PSNR of a float network, which only comes out with the right LR, luma, rounding and border."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import loadmat

from qsci_plugins.architectures.registry import load_network
from qsci_plugins.architectures.sr.edsr import EDSR
from qsci_plugins.data import shifting_mask
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


@pytest.mark.slow
@pytest.mark.skipif(not _DATA.is_dir(), reason=f"no shared data at {_DATA}; set QSCI_DATA")
@pytest.mark.parametrize(
    ("name", "other_mask", "expected"),
    [
        ("drop40", None, 38.54),
        ("runner40", None, 34.22),
        ("drop40", "mask_256x256x8", 38.96),
        ("runner40", "mask_256x256x8", 34.85),
    ],
)
def test_the_built_in_network_for_video_has_the_psnr_of_its_card(
    name: str, other_mask: str | None, expected: float
) -> None:
    mask = None if other_mask is None else loadmat(_DATA / f"sci/{other_mask}.mat")["mask"].transpose(2, 0, 1)
    assert _psnr_of_the_built_in_network(name, mask) == pytest.approx(expected, abs=0.02)


@pytest.mark.slow
@pytest.mark.skipif(not _DATA.is_dir(), reason=f"no shared data at {_DATA}; set QSCI_DATA")
@pytest.mark.parametrize(("direction", "expected"), [("right", 36.43), ("left", 36.55), ("down", 36.64)])
def test_it_knows_apertures_that_move_in_any_direction(direction: str, expected: float) -> None:
    mask = shifting_mask(8, 256, 256)
    turned = {"right": mask, "left": mask[:, :, ::-1], "down": mask.transpose(0, 2, 1)}[direction]
    found = [_psnr_of_the_built_in_network(name, turned) for name in ("drop40", "runner40")]
    assert sum(found) / 2 == pytest.approx(expected, abs=0.02)


def _psnr_of_the_built_in_network(name: str, mask: np.ndarray | None) -> float:
    """Mean PSNR in dB of a scene's first 8 frames, behind `mask` (8,H,W) or its own."""
    scene = loadmat(_DATA / f"sci/simulation/{name}_cacti.mat")
    frames = torch.from_numpy(scene["orig"]).float().permute(2, 0, 1)[None, :8]
    chosen = scene["mask"].transpose(2, 0, 1)[:8] if mask is None else mask
    shown = torch.from_numpy(np.ascontiguousarray(chosen)).float()[None]
    network = load_network(None, "builtin:efficientsci_t")
    with torch.inference_mode():
        video = network.module((shown * frames / 255).sum(1), shown, shown.sum(1).clamp_min(1))
    errors = (video.reshape(frames.shape).clamp(0, 1) - frames / 255).square().mean((2, 3))
    return (-10 * errors.log10()).mean().item()

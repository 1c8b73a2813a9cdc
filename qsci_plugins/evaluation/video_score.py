"""How good reconstructed frames are, as video SCI papers measure it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qsci_plugins.data.snapshots import bayer_mosaic
from qsci_plugins.evaluation.metrics import psnr, ssim

__all__ = ["VideoScore", "score_video"]

#: of the window of SSIM
_SSIM_SIDE = 11


@dataclass(frozen=True)
class VideoScore:
    """PSNR in dB and SSIM of every frame, and their means; SSIM is None where frames are smaller than its window."""

    psnr: float
    ssim: float | None
    frame_psnr: list[float]
    frame_ssim: list[float] | None


def score_video(frames: np.ndarray, truth: np.ndarray) -> VideoScore:
    """Frames (T,H,W) or RGB (3,T,H,W) against the truth, both in 0..1, as SCI papers do it.

    On frames scaled to 0..255, neither clamped nor rounded, each on its own; colour as a Bayer sensor sees it.
    """
    if frames.ndim == 4:
        frames, truth = bayer_mosaic(frames), bayer_mosaic(truth)
    pairs = [(255.0 * one.astype(np.float64), 255.0 * true) for one, true in zip(frames, truth, strict=True)]
    ratios = [psnr(one, true) for one, true in pairs]
    likeness = [ssim(one, true) for one, true in pairs] if min(frames.shape[1:]) >= _SSIM_SIDE else None
    return VideoScore(float(np.mean(ratios)), None if likeness is None else float(np.mean(likeness)), ratios, likeness)

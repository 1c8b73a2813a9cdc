"""PSNR and SSIM as super-resolution and snapshot compressive imaging papers compute them, in float64."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qsci_plugins.data.snapshots import bayer_mosaic

__all__ = ["VideoScore", "luma", "psnr", "psnr_y", "score_video", "ssim", "ssim_y"]

_WINDOW = 11
_SIGMA = 1.5


def luma(image: np.ndarray) -> np.ndarray:
    """Y of MATLAB's `rgb2ycbcr` (BT.601, 16..235) of an 8-bit image, not rounded: float64 (H,W).

    `image` is uint8 (H,W,3); a grey one, (H,W) or (H,W,1), counts as three equal channels.
    """
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.shape[2:] not in ((), (1,), (3,)):
        raise ValueError(f"an image to measure is uint8 (H,W,3) or (H,W), not {image.dtype} {image.shape}")
    if image.ndim == 2 or image.shape[2] == 1:
        return 16 + 219 / 255 * image.reshape(image.shape[:2]).astype(np.float64)
    return 16 + image.astype(np.float64) @ (np.array([65.481, 128.553, 24.966]) / 255)


def psnr_y(output: np.ndarray, target: np.ndarray, border: int) -> float:
    """PSNR in dB of the luma of two uint8 images without `border` pixels (the scale, in SR papers) on each
    side.

    Infinite for equal images. Raises ValueError for different sizes, or where the border leaves nothing.
    """
    return psnr(*_lumas(output, target, border))


def ssim_y(output: np.ndarray, target: np.ndarray, border: int) -> float:
    """SSIM of the luma of two uint8 images without `border` pixels on each side; see `psnr_y` and `ssim`."""
    return ssim(*_lumas(output, target, border))


def psnr(frame: np.ndarray, target: np.ndarray, peak: float = 255.0) -> float:
    """10 log10(peak^2 / mean squared difference) in dB; infinite for equal frames of any equal shape."""
    if frame.shape != target.shape or frame.size == 0:
        raise ValueError(f"PSNR compares two equal, non-empty shapes, not {frame.shape} and {target.shape}")
    error = float(np.mean((frame.astype(np.float64) - target.astype(np.float64)) ** 2))
    return float("inf") if error == 0 else float(10 * np.log10(peak**2 / error))


def ssim(frame: np.ndarray, target: np.ndarray) -> float:
    """Mean SSIM of two frames (H,W) of the scale 0..255 (Wang et al., TIP 2004; its `ssim_index.m`).

    Gaussian window of 11x11, sigma 1.5, only where it fits ("valid"); K1 = 0.01, K2 = 0.03, L = 255. Raises
    ValueError for other shapes and for frames smaller than the window.
    """
    if frame.shape != target.shape or frame.ndim != 2 or min(frame.shape) < _WINDOW:
        raise ValueError(
            f"SSIM compares two equal frames of at least {_WINDOW}x{_WINDOW} pixels, "
            f"not {frame.shape} and {target.shape}"
        )
    x, y = frame.astype(np.float64), target.astype(np.float64)
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mean_x, mean_y = _blurred(x), _blurred(y)
    variance_x = _blurred(x * x) - mean_x**2
    variance_y = _blurred(y * y) - mean_y**2
    covariance = _blurred(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * covariance + c2) / (variance_x + variance_y + c2)
    return float(np.mean(luminance * structure))


def _lumas(output: np.ndarray, target: np.ndarray, border: int) -> tuple[np.ndarray, np.ndarray]:
    first, second = luma(output), luma(target)
    if first.shape != second.shape:
        raise ValueError(f"the output has (height, width) {first.shape}, its target {second.shape}")
    if border < 0 or min(first.shape) <= 2 * border:
        raise ValueError(f"a border of {border} leaves nothing of {first.shape[1]}x{first.shape[0]} pixels")
    inside = np.s_[border : first.shape[0] - border, border : first.shape[1] - border]
    return first[inside], second[inside]


def _blurred(frame: np.ndarray) -> np.ndarray:
    offsets = np.arange(_WINDOW) - _WINDOW // 2
    weights = np.exp(-(offsets**2) / (2 * _SIGMA**2))
    weights /= weights.sum()
    height, width = frame.shape[0] - _WINDOW + 1, frame.shape[1] - _WINDOW + 1
    rows = sum(weight * frame[tap : tap + height] for tap, weight in enumerate(weights))
    return sum(weight * rows[:, tap : tap + width] for tap, weight in enumerate(weights))


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
    pairs = [(255.0 * frame.astype(np.float64), 255.0 * true) for frame, true in zip(frames, truth, strict=True)]
    ratios = [psnr(frame, true) for frame, true in pairs]
    likeness = [ssim(frame, true) for frame, true in pairs] if min(frames.shape[1:]) >= _SSIM_SIDE else None
    return VideoScore(float(np.mean(ratios)), None if likeness is None else float(np.mean(likeness)), ratios, likeness)

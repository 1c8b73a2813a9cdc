"""Image quality and benchmarks, in numpy alone; `complexity` counts a network's operations with torch."""

from __future__ import annotations

from qsci_plugins.evaluation.benchmark import BenchmarkSet, ImageResult, SetResult, evaluate_upscaler, find_set
from qsci_plugins.evaluation.metrics import psnr, psnr_y, ssim, ssim_y

__all__ = [
    "BenchmarkSet",
    "ImageResult",
    "SetResult",
    "evaluate_upscaler",
    "find_set",
    "psnr",
    "psnr_y",
    "ssim",
    "ssim_y",
]

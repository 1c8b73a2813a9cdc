"""A tiny quantized network for video, as a recipe, and a scene to measure it on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from scipy.io import savemat

from qsci_plugins.data.scenes import synthetic_scene
from qsci_plugins.data.snapshots import random_mask

TINY_VIDEO: dict[str, Any] = {
    "version": 1,
    "model": {"architecture": "efficientsci", "settings": {"in_ch": 2, "units": 1, "group_num": 1}},
    "scheme": {"name": "qsci", "weight_bits": 4, "activation_bits": 4},
    "shortcuts": ["fem.*"],
    "clips": {"frames": 3, "size": 24, "resize": False},
    "calibrate": {"count": 2, "patch": 8, "batch": 2},
    "export": {"openvino": {"tile": [24, 24], "overlap": 1}},
}


def write_scene(file: Path, frames: int = 6, seed: int = 4) -> None:
    """A .mat file with frames of the size of a tile and a mask for 3 of them."""
    mask = random_mask(3, 24, 24, seed=seed)
    savemat(file, {"orig": synthetic_scene(frames, 24, 24).transpose(1, 2, 0), "mask": mask.transpose(1, 2, 0)})

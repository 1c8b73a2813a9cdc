"""Pictures of a finished run on video: a measurement, what was made of it, and the true frame."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from qsci_plugins.data.images import write_image
from qsci_plugins.evaluation.metrics import score_video
from qsci_plugins.pipeline.run import RunResult
from qsci_plugins.report.figures import comparison

__all__ = ["draw_scenes"]


def draw_scenes(result: RunResult, folder: Path) -> list[str]:
    """Writes reconstruction_*.png, one for each scene of the first set, and returns the names."""
    names = []
    for scene in (piece.source for pieces in result.prepared.sets[:1] for piece in pieces.pieces):
        measurement, truth = next(iter(scene.pairs()))
        panels = [("measurement", _pixels(measurement / max(float(measurement.max()), 1e-6)))]
        titles = {"float": "float", "torch": "quantized", "openvino": "quantized, OpenVINO"}
        for form in ("float", "openvino" if "openvino" in result.forms else "torch"):
            frames = result.forms[form].make(scene.mask)(measurement)
            panels.append((f"{titles[form]}, {score_video(frames, truth).psnr:.2f} dB", _middle(frames)))
        panels.append(("original", _middle(truth)))
        names.append(f"reconstruction_{scene.name}.png")
        write_image(folder / names[-1], comparison(panels))
    return names


def _middle(frames: np.ndarray) -> np.ndarray:
    """The middle frame of (T,H,W) or (3,T,H,W)."""
    return _pixels(frames[..., frames.shape[-3] // 2, :, :])


def _pixels(image: np.ndarray) -> np.ndarray:
    """uint8 (H,W,3) of an image (H,W) or (3,H,W) in 0..1."""
    rgb = np.repeat(image[..., None], 3, axis=2) if image.ndim == 2 else image.transpose(1, 2, 0)
    return np.clip(np.rint(rgb * 255), 0, 255).astype(np.uint8)

"""Pictures of a finished run on video: a measurement, what was made of it, and the true frames."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qsci_plugins.data.images import write_image
from qsci_plugins.evaluation.metrics import score_video
from qsci_plugins.report.figures import busiest_crop, comparison
from qsci_plugins.report.pictures import WINDOW, Picture, ShownForm, add_pictures, encode

if TYPE_CHECKING:
    from qsci_plugins.pipeline.run import RunResult

__all__ = ["add_reconstructions", "draw_scenes", "frame_pixels"]

#: key, title, PSNR in dB and frames, uint8 (T,H,W,3), of a form
_Shown = tuple[str, str, float | None, np.ndarray]

#: scenes that report.html plays
_SCENES = 3


def draw_scenes(result: RunResult, folder: Path) -> list[str]:
    """Writes reconstruction_*.png, one for each scene of the first set, and returns the names; and pictures/."""
    names: list[str] = []
    pictures: list[Picture] = []
    for scene in (piece.source for piece in result.prepared.sets[0].pieces):
        measurement, truth = next(iter(scene.pairs()))
        shown = [_seen(measurement)]
        titles = {"float": "float", "torch": "quantized", "openvino": "quantized, OpenVINO"}
        for form in ("float", "openvino" if "openvino" in result.forms else "torch"):
            frames = result.forms[form].make(scene.mask)(measurement)
            key = "float" if form == "float" else "ours"
            shown.append((key, titles[form], score_video(frames, truth).psnr, frame_pixels(frames)))
        shown.append(("truth", "original", None, frame_pixels(truth)))
        panels = [
            (title if psnr is None else f"{title}, {psnr:.2f} dB", pixels[len(pixels) // 2])
            for _, title, psnr, pixels in shown
        ]
        names.append(f"reconstruction_{scene.name}.png")
        write_image(folder / names[-1], comparison(panels))
        if len(pictures) < _SCENES:
            pictures.append(_picture(scene.name, shown))
    add_pictures(folder, pictures)
    return names


def add_reconstructions(folder: Path, scenes: Sequence[tuple[Any, ...]]) -> None:
    """Writes pictures/ of the first scenes: each a name, its first measurement, the frames, and the truth if there is one."""
    pictures = []
    for name, measurement, frames, *truth in scenes[:_SCENES]:
        psnr = score_video(frames, truth[0]).psnr if truth else None
        shown = [_seen(measurement), ("ours", "reconstructed", psnr, frame_pixels(frames))]
        pictures.append(_picture(name, [*shown, *(("truth", "truth", None, frame_pixels(each)) for each in truth)]))
    add_pictures(folder, pictures)


def _seen(measurement: np.ndarray) -> _Shown:
    return "measurement", "measurement", None, frame_pixels(measurement[None] / max(float(measurement.max()), 1e-6))


def _picture(name: str, shown: list[_Shown]) -> Picture:
    """What report.html plays of a scene: the first measurement's frames, cut to the busiest window."""
    truth = shown[-1][-1]
    top, left = busiest_crop(truth[len(truth) // 2], WINDOW)
    window = slice(top, top + WINDOW), slice(left, left + WINDOW)
    forms = []
    for key, title, psnr, pixels in shown:
        decibels = None if psnr is None or math.isinf(psnr) else round(psnr, 2)
        forms.append(ShownForm(key, title, decibels, encode(pixels[(slice(None), *window)]), len(pixels)))
    height, width = truth[0][window].shape[:2]
    y, x = busiest_crop(truth[len(truth) // 2][window], 48)
    whole = (height, width) == truth.shape[1:3]
    note = "" if whole else f"Shown: {width}x{height} of {truth.shape[2]}x{truth.shape[1]} pixels."
    focus = (x + min(48, width) // 2, y + min(48, height) // 2)
    return Picture(
        name, height, width, focus, tuple(forms), (), f"{len(truth)} frames of one measurement. {note}".strip()
    )


def frame_pixels(frames: np.ndarray) -> np.ndarray:
    """uint8 (T,H,W,3) of frames (T,H,W) or (3,T,H,W) in 0..1."""
    rgb = np.repeat(frames[..., None], 3, axis=3) if frames.ndim == 3 else frames.transpose(1, 2, 3, 0)
    return np.clip(np.rint(rgb * 255), 0, 255).astype(np.uint8)

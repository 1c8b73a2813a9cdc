"""summary.md and pictures of a finished run on snapshot video."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from qsci_plugins.data.images import write_image
from qsci_plugins.evaluation.metrics import score_video
from qsci_plugins.files import write_text
from qsci_plugins.pipeline.video_run import VideoRunResult
from qsci_plugins.report.figures import comparison
from qsci_plugins.report.summary import FORMS, bits_section, machine_line, operations_section, seconds_section, table

__all__ = ["video_summary", "write_video_report"]


def write_video_report(result: VideoRunResult, folder: Path) -> None:
    """Adds summary.md and reconstruction_*.png, one for each scene of the first set, to a run's folder."""
    names = []
    for scene in next(iter(result.prepared.scenes.values()), []):
        measurement, truth = next(iter(scene.pairs()))
        assert truth is not None
        panels = [("measurement", _pixels(measurement / max(float(measurement.max()), 1e-6)))]
        titles = {**FORMS, "torch": "quantized"}
        for form in ("float", "openvino" if "openvino" in result.forms else "torch"):
            frames = result.forms[form].make(scene.mask)(measurement)
            panels.append((f"{titles[form]}, {score_video(frames, truth).psnr:.2f} dB", _middle(frames)))
        panels.append(("original", _middle(truth)))
        names.append(f"reconstruction_{scene.name}.png")
        write_image(folder / names[-1], comparison(panels))
    write_text(folder / "summary.md", video_summary(result.metrics, names))


def video_summary(metrics: Mapping[str, Any], pictures: list[str]) -> str:
    """Markdown of the content of a run's metrics.json; `pictures` are file names beside it."""
    scheme, network = metrics["scheme"], metrics["network"]
    settings = ", ".join(f"{key} {value}" for key, value in scheme.items() if key != "name")
    shortcuts = ", ".join(network["shortcuts"]) or "none"
    parts = [
        f"# {network['architecture']}, {scheme['name']} through {metrics['backend']}",
        f"Weights: {network['weights'] or 'random'}. Scheme: {settings}. Shortcuts: {shortcuts}.",
        _quality(metrics["sets"]),
        operations_section(metrics["operations"]),
        seconds_section(metrics["seconds"]),
        bits_section(metrics["bits"]),
        machine_line(metrics["machine"]),
        *(f"![{name}]({name})" for name in pictures),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _quality(sets: Mapping[str, Any]) -> str:
    rows = []
    for name, row in sets.items():
        for form, title in FORMS.items():
            if form not in row:
                continue
            scenes = {"mean": row[form]} if len(row[form]["scenes"]) > 1 else {}
            for scene, one in {**row[form]["scenes"], **scenes}.items():
                reference = row["float"]["psnr"] if scene == "mean" else row["float"]["scenes"][scene]["psnr"]
                share = "" if form == "float" else f"{100 * one['psnr'] / reference:.2f} %"
                ssim = "" if one["ssim"] is None else f"{one['ssim']:.4f}"
                fab = "" if one.get("fab") is None else f"{one['fab']:.2f}"
                rows.append([f"{name} {scene}: {title}", f"{one['psnr']:.2f}", share, ssim, fab])
    if not rows:
        return "No set was measured; name `builtin`, or a folder of .mat files, in the recipe's `evaluate`."
    note = "PSNR and SSIM of each frame of 0..255, neither clamped nor rounded, averaged over frames and measurements."
    return f"## Quality\n\n{table(['scene: form', 'PSNR dB', 'of float', 'SSIM', 'FAB bits'], rows)}\n\n{note}"


def _middle(frames: np.ndarray) -> np.ndarray:
    """The middle frame of (T,H,W) or (3,T,H,W)."""
    return _pixels(frames[..., frames.shape[-3] // 2, :, :])


def _pixels(image: np.ndarray) -> np.ndarray:
    """uint8 (H,W,3) of an image (H,W) or (3,H,W) in 0..1."""
    rgb = np.repeat(image[..., None], 3, axis=2) if image.ndim == 2 else image.transpose(1, 2, 0)
    return np.clip(np.rint(rgb * 255), 0, 255).astype(np.uint8)

"""One table for the forms of a video network: float, quantized in torch, exported."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qsci_plugins.architectures.network import Network
from qsci_plugins.data.snapshot_sources import SnapshotSource
from qsci_plugins.evaluation.bit_meter import BitMeter
from qsci_plugins.evaluation.complexity import FLOAT_BITS
from qsci_plugins.evaluation.metrics import score_video
from qsci_plugins.evaluation.torch_networks import TorchReconstructor
from qsci_plugins.openvino.precisions import Precision
from qsci_plugins.progress import Progress
from qsci_plugins.schemes.ledger import record_bits
from qsci_plugins.schemes.scheme import QuantizedNetwork

__all__ = ["VideoForm", "float_video_form", "measure_video", "openvino_video_form", "quantized_video_form"]

#: what stands for the infinite PSNR of equal frames, which JSON does not have
_EQUAL = 100.0


#: frames (T,H,W) or (3,T,H,W) of a measurement (H,W), both of 0..1
Reconstruct = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class VideoForm:
    """A way to run a network: `make` one for a mask (T,H,W); `fab` is that of the last measurement."""

    make: Callable[[np.ndarray], Reconstruct]
    fab: Callable[[], float] | None = None


def float_video_form(network: Network) -> VideoForm:
    """The float network in torch, 32 bits everywhere."""
    return VideoForm(
        lambda mask: TorchReconstructor(network.module, mask, network.size_multiple).reconstruct,
        lambda: float(FLOAT_BITS),
    )


def quantized_video_form(quantized: QuantizedNetwork, network: Network, meter: BitMeter) -> VideoForm:
    """The quantized network in torch; `meter` notes the bits of every measurement."""

    def make(mask: np.ndarray) -> Reconstruct:
        inner = TorchReconstructor(quantized.model, mask, network.size_multiple)

        def reconstruct(measurement: np.ndarray) -> np.ndarray:
            with record_bits() as ledger:
                frames = inner.reconstruct(measurement)
            meter.note(ledger)
            return frames

        return reconstruct

    return VideoForm(make, meter.last_fab)


def openvino_video_form(folder: Path, threads: int | None = None, precision: Precision = "auto") -> VideoForm:
    """The model folder through its runtime, of whose settings `threads` and `precision` are."""
    from qsci_plugins.openvino.reconstructor import Reconstructor

    return VideoForm(lambda mask: Reconstructor(folder, mask, threads=threads, precision=precision).reconstruct)


def measure_video(
    forms: Mapping[str, VideoForm],
    sets: Mapping[str, Sequence[SnapshotSource]],
    progress: Progress,
    measurements: Mapping[str, int | None] | None = None,
) -> dict[str, Any]:
    """By set and form the mean PSNR, SSIM and FAB over scenes, with those of every scene and measurement under `scenes`.

    `measurements` says of how many measurements of each scene, None for all.
    """
    table: dict[str, Any] = {}
    for name, scenes in sets.items():
        limit = (measurements or {}).get(name)
        row: dict[str, Any] = {}
        for form, way in forms.items():
            with progress.stage(f"{name}: {form}", len(scenes)) as advance:
                scored = {}
                for number, scene in enumerate(scenes, 1):
                    scored[scene.name] = _score(way, scene, limit)
                    advance(number, f"{scored[scene.name]['psnr']:.2f} dB")
            row[form] = {**_means(list(scored.values())), "scenes": scored}
        table[name] = row
    return table


def _score(form: VideoForm, scene: SnapshotSource, limit: int | None) -> dict[str, Any]:
    each = []
    reconstruct = form.make(scene.mask)
    for index, (measurement, truth) in enumerate(scene.pairs()):
        if truth is None or index == limit:
            break
        score = score_video(reconstruct(measurement), truth)
        fab = None if form.fab is None else form.fab()
        each.append({"psnr": min(score.psnr, _EQUAL), "ssim": score.ssim, "fab": fab})
    return {**_means(each), "measurements": each}


def _means(each: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    means: dict[str, Any] = {}
    for key in ("psnr", "ssim", "fab"):
        known = [one[key] for one in each if one[key] is not None]
        means[key] = math.fsum(known) / len(known) if known else None
    return means

"""Forms of a network that reconstructs video, and its pieces: scenes, measured through their masks."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qsci_plugins.architectures.network import Network
from qsci_plugins.data.snapshot_sources import SnapshotSource
from qsci_plugins.evaluation.bit_meter import BitMeter
from qsci_plugins.evaluation.complexity import FLOAT_BITS
from qsci_plugins.evaluation.metrics import score_video
from qsci_plugins.evaluation.torch_networks import TorchReconstructor
from qsci_plugins.pipeline.task import PieceResult
from qsci_plugins.schemes.bit_width import record_bits
from qsci_plugins.schemes.scheme import QuantizedNetwork

if TYPE_CHECKING:
    from qsci_plugins.openvino.precisions import Precision

__all__ = ["Scene", "VideoForm", "float_video_form", "openvino_video_form", "quantized_video_form", "score_scene"]

#: what stands for the infinite PSNR of equal frames
_EQUAL = 100.0

#: frames (T,H,W) or (3,T,H,W) of a measurement (H,W), both of 0..1
Reconstruct = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Scene:
    """A scene, and of how many of its measurements it is scored (None: all)."""

    source: SnapshotSource
    measurements: int | None = None


@dataclass(frozen=True)
class VideoForm:
    """A way to run a network: `make` binds it to a mask (T,H,W); `fab` is that of the last measurement."""

    make: Callable[[np.ndarray], Reconstruct]
    fab: Callable[[], float] | None = None
    summary: Callable[[], Mapping[str, Any]] | None = None


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


def score_scene(form: VideoForm, scene: Scene) -> PieceResult:
    """Means over a scene's measurements, with each of them in the extra `measurements`; equal frames count as 100 dB."""
    each: list[dict[str, float | None]] = []
    reconstruct = form.make(scene.source.mask)
    for index, (measurement, truth) in enumerate(scene.source.pairs()):
        if truth is None or index == scene.measurements:
            break
        score = score_video(reconstruct(measurement), truth)
        fab = None if form.fab is None else form.fab()
        each.append({"psnr": min(score.psnr, _EQUAL), "ssim": score.ssim, "fab": fab})
    psnr, ssim, fab = (_mean(each, key) for key in ("psnr", "ssim", "fab"))
    return PieceResult(scene.source.name, math.nan if psnr is None else psnr, ssim, fab, {"measurements": each})


def _mean(each: Sequence[Mapping[str, float | None]], key: str) -> float | None:
    known = [value for numbers in each if (value := numbers[key]) is not None]
    return math.fsum(known) / len(known) if known else None

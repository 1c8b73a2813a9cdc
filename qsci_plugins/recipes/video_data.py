"""Where a video recipe's clips, mask and scenes come from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from qsci_plugins.data.clips import SnapshotClips
from qsci_plugins.data.scenes import synthetic_scene
from qsci_plugins.data.sequences import read_sequence, sequences
from qsci_plugins.data.snapshots import SensorNoise, random_mask
from qsci_plugins.errors import UserError
from qsci_plugins.progress import Progress
from qsci_plugins.recipes.reading import expand
from qsci_plugins.recipes.video_schema import BUILTIN_SCENES, Clips, VideoCalibration

__all__ = ["ClipSource", "calibration_inputs"]

#: the built-in scenes: how many, and how long, high and wide they are
_SCENES, _LENGTH, _SIDE = 12, 16, 192


class ClipSource:
    """The sequences of a recipe's `clips`, in memory, and its mask; `clips` cuts training clips out of them.

    Raises UserError where a folder, the mask or a sequence long enough is missing.
    """

    def __init__(self, settings: Clips, color: bool, progress: Progress) -> None:
        self._settings = settings
        self.mask = _mask(settings)
        self._sequences = _sequences(settings, color, progress)

    def clips(self, patch: int, key: str, frames: int | None = None) -> SnapshotClips:
        """Random clips of `patch` pixels, of the first `frames` frames of the mask; `key` is what an error names."""
        settings = self._settings
        noisy = settings.gaussian or settings.photons is not None
        noise = SensorNoise(settings.photons, settings.gaussian) if noisy else None
        if frames is not None and frames > len(self.mask):
            raise UserError(f"{key}: the mask has {len(self.mask)} frames, not {frames}")
        try:
            return SnapshotClips(self._sequences, self.mask[:frames], patch, resize=settings.resize, noise=noise)
        except UserError as error:
            raise UserError(f"{key}: {error}") from None


def calibration_inputs(source: ClipSource, settings: VideoCalibration) -> list[tuple[Tensor, ...]]:
    """Batches (measurement, mask, mask_sum) for the quantizers to look at."""
    clips = source.clips(settings.patch, "calibrate.patch")
    drawn = clips.draw(settings.seed, 0, settings.count)
    return list(zip(*(one.split(settings.batch) for one in drawn[:3]), strict=True))


def _mask(settings: Clips) -> np.ndarray:
    if settings.mask == "random":
        return random_mask(settings.frames, settings.size, settings.size)
    from qsci_plugins.data.matlab import read_mask

    return read_mask(expand(settings.mask, "clips.mask"))


def _sequences(settings: Clips, color: bool, progress: Progress) -> list[np.ndarray]:
    if settings.folders == [BUILTIN_SCENES]:
        length = max(_LENGTH, settings.frames)
        with progress.stage("making scenes", _SCENES) as advance:
            made = []
            for seed in range(_SCENES):
                made.append(synthetic_scene(length, _SIDE, _SIDE, seed, color=color, part="calibration"))
                advance(seed + 1)
        return made
    paths = [path for folder in settings.folders for path in _found(folder)]
    with progress.stage("reading sequences", len(paths)) as advance:
        read = []
        for number, path in enumerate(paths, 1):
            read.append(read_sequence(path, color=color, downsize=settings.downsize))
            advance(number)
    return read


def _found(folder: str) -> Sequence[Path]:
    try:
        return sequences(expand(folder, "clips.folders"))
    except UserError as error:
        raise UserError(f"clips.folders: {error}" if "clips.folders" not in str(error) else str(error)) from None


def to_inputs(measurement: np.ndarray, mask: np.ndarray, mask_sum: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
    """One measurement (H,W) with its mask (T,H,W) as a batch of one."""
    arrays = (measurement, mask, mask_sum)
    y, m, s = (torch.from_numpy(np.ascontiguousarray(array, np.float32))[None] for array in arrays)
    return y, m, s

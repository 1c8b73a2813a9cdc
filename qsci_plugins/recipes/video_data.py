"""Where a video recipe's clips, mask and scenes come from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from qsci_plugins.data.clips import SnapshotClips
from qsci_plugins.data.scenes import synthetic_scene
from qsci_plugins.data.sequences import read_sequence, sequences
from qsci_plugins.data.snapshot_files import read_mask
from qsci_plugins.data.snapshot_sources import SnapshotSource, open_source, source_paths
from qsci_plugins.data.snapshots import SensorNoise, random_mask
from qsci_plugins.errors import UserError
from qsci_plugins.progress import Progress
from qsci_plugins.recipes.reading import expand
from qsci_plugins.recipes.video_schema import BUILTIN_SCENES, Clips, VideoCalibration, VideoSet

__all__ = ["ClipSource", "calibration_inputs", "find_scenes", "open_scenes"]

#: the built-in scenes: how many, and how long, high and wide they are
_SCENES, _LENGTH, _SIDE = 12, 16, 192


class ClipSource:
    """The sequences of a recipe's `clips`, in memory, and its mask; `clips` cuts training clips out of them.

    Raises UserError where a folder, the mask or a sequence long enough is missing.
    """

    def __init__(self, settings: Clips, color: bool, progress: Progress) -> None:
        self._settings = settings
        self.mask = _mask(settings)
        self._sequences = _sequences(settings, color, len(self.mask), progress)

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
    drawn = source.clips(settings.patch, "calibrate.patch").draw(settings.seed, 0, settings.count)
    return list(zip(*(one.split(settings.batch) for one in drawn[:3]), strict=True))


def find_scenes(sets: Sequence[VideoSet], frames: int, color: bool) -> dict[str, list[SnapshotSource]]:
    """The scenes of every set; those made here or of video files go through a random mask of `frames` frames.

    Raises UserError for a folder that is not there or holds nothing, and for a scene without true frames to measure by.
    """
    found = {}
    for index, one in enumerate(sets):
        key = f"evaluate.{index}"
        try:
            place = one.name if one.folder is None else expand(one.folder, f"{key}.folder")
            found[one.name] = open_scenes(place, frames, color)
        except UserError as error:
            raise UserError(f"{key}: {error}") from None
    return found


def open_scenes(place: str | Path, frames: int, color: bool) -> list[SnapshotSource]:
    """The built-in scene, or those in a folder, as `find_scenes` has them."""
    scenes = [open_source(path, frames=frames, color=color) for path in source_paths([place])]
    for scene in scenes:
        first = next(iter(scene.pairs()), None)
        if first is None or first[1] is None:
            raise UserError(f"{scene.name} has no true frames to measure by; a .mat file has them as `orig`")
    return scenes


def _mask(settings: Clips) -> np.ndarray:
    if settings.mask == "random":
        return random_mask(settings.frames, settings.size, settings.size)
    file = expand(settings.mask, "clips.mask")
    try:
        return read_mask(file)
    except UserError as error:
        raise UserError(f"clips.mask: {error}") from None


def _sequences(settings: Clips, color: bool, frames: int, progress: Progress) -> list[np.ndarray]:
    if settings.folders == [BUILTIN_SCENES]:
        length = max(_LENGTH, 2 * frames)
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


def _found(folder: str) -> list[Path]:
    path = expand(folder, "clips.folders")
    try:
        return sequences(path)
    except UserError as error:
        raise UserError(f"clips.folders: {error}") from None

"""Where measurements to reconstruct come from: files of them, clips that are measured first, and the built-in scene."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qsci_plugins.data.folders import is_image
from qsci_plugins.data.scenes import synthetic_scene
from qsci_plugins.data.sequences import VIDEO_SUFFIXES, frames_of, grey
from qsci_plugins.data.snapshot_arrays import ARRAY_SUFFIXES
from qsci_plugins.data.snapshot_files import read_snapshots
from qsci_plugins.data.snapshot_white import White
from qsci_plugins.data.snapshots import measure, random_mask
from qsci_plugins.errors import UserError

__all__ = ["BUILTIN_SCENE", "SnapshotSource", "measured_through", "open_source", "source_paths"]

#: the name of the scene made by code
BUILTIN_SCENE = "builtin"

_FRAMES = 8
#: measurements of the built-in scene
_MEASUREMENTS = 2


@dataclass(frozen=True)
class SnapshotSource:
    """Measurements of one scene through one mask (T,H,W).

    `pairs` yields measurements (H,W) of frames in 0..1, each with its true frames (T,H,W) or (3,T,H,W), or None. `count` is
    how many come, 0 where nobody knows.
    """

    name: str
    mask: np.ndarray
    count: int
    pairs: Callable[[], Iterator[tuple[np.ndarray, np.ndarray | None]]]
    #: of measurements in a file: how their full brightness was found
    white: White | None = None


def source_paths(inputs: Sequence[str | Path]) -> list[Path]:
    """The scenes among `inputs`: names as they are, of folders without frames the .mat, .npy and .npz files and
    videos, sorted.

    Raises UserError for a path that does not exist and a folder that holds nothing to reconstruct.
    """
    found: dict[Path, None] = {}
    for path in map(Path, inputs):
        if str(path) == BUILTIN_SCENE and not path.exists():
            found[path] = None
        elif not path.exists():
            raise UserError(
                f"{path} does not exist; give .mat, .npy, .npz, TIFF or PNG files, clips, folders of them, or {BUILTIN_SCENE}"
            )
        elif path.is_dir() and not _holds_frames(path):
            files = [
                file
                for file in sorted(path.iterdir())
                if file.suffix.lower() in (*ARRAY_SUFFIXES, *VIDEO_SUFFIXES) and not file.name.startswith(".")
            ]
            if not files:
                raise UserError(
                    f"{path} holds nothing to reconstruct: no .mat, .npy or .npz file, no clip and no frames"
                )
            found.update(dict.fromkeys(files))
        else:
            found[path] = None
    return list(found)


def open_source(
    path: Path,
    mask: np.ndarray | None = None,
    *,
    white: float | None = None,
    names: Mapping[str, str] | None = None,
    frames: int | None = None,
    color: bool = False,
    seed: int = 0,
) -> SnapshotSource:
    """One of `source_paths`. A clip is read T frames at a time, so that one of any length takes the same memory.

    Clips (grey, or with `color` through a Bayer filter) and the built-in scene are measured through `mask` or else through a
    random one of `frames` frames (default 8) by `seed`. `mask`, `white` and `names` go to `read_snapshots` for a file of
    measurements, which brings its own mask otherwise. Raises UserError for what cannot be read, and where sizes do not fit.
    """
    if str(path) == BUILTIN_SCENE and not path.exists():
        return _builtin(mask, frames or _FRAMES, color, seed)
    if path.is_dir() or path.suffix.lower() in VIDEO_SUFFIXES:
        return _clip(path, mask, frames or _FRAMES, color, seed)
    snapshots = read_snapshots(path, mask, white, names)
    truth = [None] * len(snapshots.measurements) if snapshots.frames is None else snapshots.frames
    return SnapshotSource(
        path.stem,
        snapshots.mask,
        len(snapshots.measurements),
        lambda: zip(snapshots.measurements, truth, strict=True),
        snapshots.white_found,
    )


def measured_through(mask: np.ndarray, source: SnapshotSource, name: str) -> SnapshotSource:
    """A scene as measured through another mask (T,H,W), which needs its true frames; UserError where sizes do not fit."""
    if mask.shape != source.mask.shape:
        has, needs = (f"{size[0]} frames of {size[2]}x{size[1]}" for size in (mask.shape, source.mask.shape))
        raise UserError(f"the mask has {has}, {source.name} {needs}")

    def pairs() -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        for _, truth in source.pairs():
            if truth is not None:
                yield measure(truth, mask), truth

    return SnapshotSource(name, mask, source.count, pairs)


def _builtin(mask: np.ndarray | None, frames: int, color: bool, seed: int) -> SnapshotSource:
    mask = random_mask(frames, 256, 256, seed) if mask is None else mask
    count, height, width = mask.shape
    scene = synthetic_scene(count * _MEASUREMENTS, height, width, seed, color=color)

    def pairs() -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        for first in range(0, len(scene), count):
            yield _pair(scene[first : first + count], mask)

    return SnapshotSource(BUILTIN_SCENE, mask, _MEASUREMENTS, pairs)


def _clip(path: Path, mask: np.ndarray | None, frames: int, color: bool, seed: int) -> SnapshotSource:
    first = next(iter(frames_of(path)), None)
    if first is None:
        raise UserError(f"{path} holds no frames")
    height, width = first.shape[:2]
    mask = random_mask(frames, height, width, seed) if mask is None else mask
    if mask.shape[1:] != (height, width):
        raise UserError(f"{path} is {width}x{height} pixels, the mask {mask.shape[2]}x{mask.shape[1]}; make them agree")

    def pairs() -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        waiting: list[np.ndarray] = []
        done = 0
        for frame in frames_of(path):
            if frame.shape != first.shape:
                raise UserError(f"{path}: the frames are not of one size; one folder is one clip")
            waiting.append(frame if color else grey(frame))
            if len(waiting) == len(mask):
                yield _pair(np.stack(waiting), mask)
                waiting, done = [], done + 1
        if not done:
            raise UserError(f"{path} has {len(waiting)} frames, fewer than the {len(mask)} of one measurement")

    return SnapshotSource(path.stem if path.is_file() else path.name, mask, 0, pairs)


def _pair(frames: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The measurement of uint8 frames (T,H,W) or (T,H,W,3), and the frames in 0..1."""
    truth = (frames if frames.ndim == 3 else frames.transpose(3, 0, 1, 2)).astype(np.float32) / 255
    return measure(truth, mask), truth


def _holds_frames(folder: Path) -> bool:
    return any(is_image(file) for file in folder.iterdir())

"""Snapshot measurements, masks and their ground truth in the published .mat layouts, all with frames in 0..1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qsci_plugins.data.matlab import mat_keys, read_mat
from qsci_plugins.data.snapshots import mask_sum, measure
from qsci_plugins.errors import UserError

__all__ = ["FRAME_KEYS", "Snapshots", "read_mask", "read_snapshots"]

#: what published files call the frames, in the order in which they are looked for
FRAME_KEYS = ("orig", "patch_save", "p1", "p2", "p3")
_MASK, _MEASUREMENT = "mask", "meas"
#: a measurement may be this much brighter than its mask lets through: sensor noise
_MARGIN = 1.1
_LEVELS = (1.0, 255.0, 65535.0)


@dataclass(frozen=True)
class Snapshots:
    """Measurements of one camera.

    `measurements` float32 (M,H,W), masked sums of frames in 0..1; `mask` float32 (T,H,W) in 0..1; `frames` the ground
    truth, float32 (M,T,H,W) or RGB (M,3,T,H,W) in 0..1, None where the file has none. `white` is what a frame's full
    brightness was in the file.
    """

    measurements: np.ndarray
    mask: np.ndarray
    frames: np.ndarray | None
    white: float


def read_mask(path: str | Path) -> np.ndarray:
    """The variable `mask` (H,W,T) of a .mat file as float32 (T,H,W) in 0..1.

    Integer masks are scaled by their largest value. Raises UserError for a file without one, and for one that is no mask:
    negative, above 1 or all zero.
    """
    path = Path(path)
    found = read_mat(path, (_MASK,))
    if _MASK not in found:
        raise _lacking(path, f"no mask (the variable {_MASK})")
    return _as_mask(path, found[_MASK])


def read_snapshots(path: str | Path, mask: np.ndarray | None = None, white: float | None = None) -> Snapshots:
    """Measurements (`meas`, H,W or H,W,M), mask (`mask`, H,W,T) and frames (H,W,F or H,W,3,F; see FRAME_KEYS) of a .mat file.

    `mask` (T,H,W) takes the place of the file's. Where the file has frames and no measurement, the frames are measured,
    through a Bayer filter in colour; what is left over of T frames is dropped. `white` is what a frame's full brightness is in
    the file; by default 1, 255 or 65535, the least that explains the values, and for the 8-bit and 16-bit readings of a real
    camera, as published, 2/T of its full range. Raises UserError where anything is missing or does not fit together.
    """
    path = Path(path)
    found = read_mat(path, (*FRAME_KEYS, _MASK, _MEASUREMENT))
    key = next((name for name in FRAME_KEYS if name in found), None)
    if _MEASUREMENT not in found and key is None:
        raise _lacking(path, f"neither a measurement ({_MEASUREMENT}) nor frames ({', '.join(FRAME_KEYS)})")
    if mask is None:
        if _MASK not in found:
            raise UserError(f"{path} holds no mask (the variable {_MASK}); give the camera's with --mask FILE")
        mask = _as_mask(path, found[_MASK])
    frames = None if key is None else _as_frames(path, key, found[key])
    if _MEASUREMENT not in found:
        assert frames is not None
        assert key is not None
        return _measured(path, key, frames, mask, white)
    measurements = _as_measurements(path, found[_MEASUREMENT])
    _check_size(path, _MEASUREMENT, measurements.shape[1:], mask)
    if white is None:
        white = _white(
            path, measurements, found[_MEASUREMENT].dtype, mask, None if frames is None else _level(path, frames)
        )
    measurements = (measurements / np.float32(white)).astype(np.float32)
    if frames is None or key is None:
        return Snapshots(measurements, mask, None, white)
    wanted = len(measurements) * len(mask)
    _check_size(path, key, frames.shape[-2:], mask)
    if len(frames) < wanted:
        raise UserError(
            f"{path}: {key} has {len(frames)} frames, but {len(measurements)} measurements through a mask for"
            f" {len(mask)} frames are of {wanted}; is it the right mask?"
        )
    return Snapshots(measurements, mask, _grouped(frames[:wanted], len(mask), _level(path, frames)), white)


def _measured(path: Path, key: str, frames: np.ndarray, mask: np.ndarray, white: float | None) -> Snapshots:
    _check_size(path, key, frames.shape[-2:], mask)
    count = len(frames) // len(mask)
    if not count:
        raise UserError(f"{path}: {key} has {len(frames)} frames, fewer than the {len(mask)} of one measurement")
    white = _level(path, frames) if white is None else white
    truth = _grouped(frames[: count * len(mask)], len(mask), white)
    measurements = np.stack([measure(one, mask) for one in truth]).astype(np.float32)
    return Snapshots(measurements, mask, truth, white)


def _grouped(frames: np.ndarray, count: int, white: float) -> np.ndarray:
    """(F,H,W) or (F,3,H,W) as (M,T,H,W) or (M,3,T,H,W) in 0..1."""
    grouped = frames.reshape(-1, count, *frames.shape[1:])
    if grouped.ndim == 5:
        grouped = grouped.transpose(0, 2, 1, 3, 4)
    return np.ascontiguousarray(grouped / np.float32(white), np.float32)


def _as_mask(path: Path, mask: np.ndarray) -> np.ndarray:
    mask = mask[..., None] if mask.ndim == 2 else mask
    if mask.ndim != 3 or 0 in mask.shape:
        raise UserError(f"{path}: {_MASK} is {_shape(mask.shape)}; it should be height x width x frames")
    largest = float(mask.max())
    if mask.min() < 0 or largest == 0:
        raise UserError(f"{path}: {_MASK} {'is all zero' if largest == 0 else 'has negative values'}; it is no mask")
    if mask.dtype.kind in "ui" and largest > 1:
        mask = mask / largest
    elif largest > _MARGIN:
        raise UserError(f"{path}: {_MASK} goes up to {largest:g}; it should be in 0..1")
    return np.ascontiguousarray(mask.transpose(2, 0, 1), np.float32)


def _as_measurements(path: Path, array: np.ndarray) -> np.ndarray:
    array = array[..., None] if array.ndim == 2 else array
    if array.ndim != 3 or 0 in array.shape:
        raise UserError(f"{path}: {_MEASUREMENT} is {_shape(array.shape)}; it should be height x width x measurements")
    return array.transpose(2, 0, 1).astype(np.float32)


def _as_frames(path: Path, key: str, array: np.ndarray) -> np.ndarray:
    """(F,H,W) or (F,3,H,W), of the file's type."""
    array = array[..., None] if array.ndim == 2 else array
    if 0 not in array.shape and array.ndim == 3:
        return array.transpose(2, 0, 1)
    if 0 not in array.shape and array.ndim == 4 and array.shape[2] == 3:
        return array.transpose(3, 2, 0, 1)
    raise UserError(f"{path}: {key} is {_shape(array.shape)}; it should be height x width [x 3] x frames")


def _level(path: Path, frames: np.ndarray) -> float:
    """What full brightness is in frames."""
    if frames.dtype == np.uint8:
        return 255.0
    return _least(path, "the frames", float(frames.max()), 1.0)


def _white(path: Path, measurements: np.ndarray, dtype: np.dtype, mask: np.ndarray, level: float | None) -> float:
    """What a frame's full brightness is in measurements of this type, by that of the frames in the file, if any."""
    largest, opening = float(measurements.max()), float(mask_sum(mask).max())
    if level is not None and largest <= level * opening * _MARGIN:
        return level
    camera = 2 / len(mask)
    if level is None and dtype == np.uint8:
        return 255.0 * camera
    if level is None and dtype == np.uint16 and largest > 255 * opening * _MARGIN:
        return 65535.0 * camera
    return _least(path, _MEASUREMENT, largest, opening)


def _least(path: Path, what: str, largest: float, opening: float) -> float:
    for level in _LEVELS:
        if largest <= level * opening * _MARGIN:
            return level
    raise UserError(
        f"{path}: {what} goes up to {largest:g}, more than 16-bit frames through this mask can give; tell with"
        " --white what full brightness is"
    )


def _check_size(path: Path, key: str, size: Sequence[int], mask: np.ndarray) -> None:
    if tuple(size) != mask.shape[1:]:
        raise UserError(
            f"{path}: {key} is {size[1]}x{size[0]} pixels, the mask {mask.shape[2]}x{mask.shape[1]};"
            " they must be of one camera"
        )


def _lacking(path: Path, what: str) -> UserError:
    keys = ", ".join(f"{name} ({_shape(shape)})" for name, shape in mat_keys(path).items())
    return UserError(f"{path} holds {what}; it has {keys or 'no variables'}")


def _shape(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "a single number"

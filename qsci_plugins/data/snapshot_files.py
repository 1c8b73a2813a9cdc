"""Snapshot measurements, masks and their ground truth in files, all with frames in 0..1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qsci_plugins.data.snapshot_arrays import ARRAY_SUFFIXES, array_names, frames_come_first, read_arrays
from qsci_plugins.data.snapshot_white import MARGIN, White, white_level
from qsci_plugins.data.snapshots import measure
from qsci_plugins.errors import UserError

__all__ = ["FRAME_KEYS", "KEYS", "Snapshots", "read_mask", "read_snapshots"]

#: what published files call the frames, in the order in which they are looked for
FRAME_KEYS = ("orig", "patch_save", "p1", "p2", "p3")
_MASK, _MEASUREMENT, _FRAMES = "mask", "meas", "frames"
#: what `names` may rename
KEYS = (_MEASUREMENT, _MASK, _FRAMES)


@dataclass(frozen=True)
class Snapshots:
    """Measurements of one camera.

    `measurements` float32 (M,H,W), masked sums of frames in 0..1; `mask` float32 (T,H,W) in 0..1; `frames` the ground
    truth, float32 (M,T,H,W) or RGB (M,3,T,H,W) in 0..1, None where the file has none. `white` is what a frame's full
    brightness was in the file, and `white_found`, for measurements of a file, how it was found.
    """

    measurements: np.ndarray
    mask: np.ndarray
    frames: np.ndarray | None
    white: float
    white_found: White | None = None


def read_mask(path: str | Path, names: Mapping[str, str] | None = None, frames: int | None = None) -> np.ndarray:
    """The mask of a .mat or .npz file (the variable `mask`, or what `names` calls it), a .npy or TIFF file, a PNG file of
    one frame or a folder with an image for each, as float32 (T,H,W) in 0..1.

    T is found by shape: the axis of `frames` where that is known, else the shortest. Integer masks are scaled by their
    largest value. Raises UserError for a file without one, and for one that is no mask: negative, above 1, all zero, or
    of another number of frames.
    """
    path = Path(path)
    key = (names or {}).get(_MASK, _MASK)
    found = read_arrays(path, (key,), key)
    if key not in found:
        raise _lacking(path, f"no mask (the variable {key})")
    mask = _levels_of_mask(path, key, found[key])
    axis = 0 if frames_come_first(path) else 2
    fitting = [place for place in (axis, 2 - axis) if frames is None or mask.shape[place] == frames]
    if not fitting:
        raise UserError(
            f"{path}: {key} is {_shape(found[key].shape)}, and the network reconstructs {frames} frames;"
            " use the mask that it was trained for"
        )
    return _as_layers(mask, min(fitting, key=lambda place: mask.shape[place]))


def read_snapshots(
    path: str | Path,
    mask: np.ndarray | None = None,
    white: float | None = None,
    names: Mapping[str, str] | None = None,
) -> Snapshots:
    """Measurements (`meas`), mask (`mask`) and frames (see FRAME_KEYS) of a .mat or .npz file, or the measurements of a
    .npy, TIFF or PNG file.

    Arrays are (H,W,M), (H,W,T) and (H,W,F) or (H,W,3,F) in .mat files and begin with M, T and F elsewhere; another order
    is found where the sizes show it. `names` gives other names, such as {"meas": "Y"}. `mask` (T,H,W) takes the place of
    the file's. Where the file has frames and no measurement, the frames are measured, through a Bayer filter in colour;
    what is left over of T frames is dropped. `white` is what a frame's full brightness is in the file, by default
    `snapshot_white.white_level`'s. Raises UserError where anything is missing or does not fit together.
    """
    path = Path(path)
    called = {_MASK: _MASK, _MEASUREMENT: _MEASUREMENT, **(names or {})}
    frame_keys = (called[_FRAMES],) if _FRAMES in called else FRAME_KEYS
    found = read_arrays(path, (*frame_keys, called[_MASK], called[_MEASUREMENT]), called[_MEASUREMENT])
    key = next((name for name in frame_keys if name in found), None)
    if called[_MEASUREMENT] not in found and key is None:
        raise _lacking(path, f"neither a measurement ({called[_MEASUREMENT]}) nor frames ({', '.join(frame_keys)})")
    measured = found.get(called[_MEASUREMENT])
    if mask is None:
        if called[_MASK] not in found:
            raise UserError(f"{path} holds no mask (the variable {called[_MASK]}); give the camera's with --mask FILE")
        mask = _mask_beside(path, called[_MASK], found[called[_MASK]], measured)
    frames = None if key is None else _as_frames(path, key, found[key], mask.shape[1:])
    if measured is None:
        assert frames is not None
        assert key is not None
        return _measured(path, key, frames, mask, white)
    measurements = _as_measurements(path, called[_MEASUREMENT], measured, mask.shape[1:])
    _check_size(path, called[_MEASUREMENT], measurements.shape[1:], mask)
    level = None if frames is None else _level(path, frames)
    try:
        found_white = white_level(measurements, measured.dtype, mask, white, level)
    except ValueError as error:
        raise UserError(
            f"{path}: {called[_MEASUREMENT]} goes {error}, more than 16-bit frames through this mask can give; tell with"
            " --white what full brightness is"
        ) from None
    measurements = (measurements / np.float32(found_white.level)).astype(np.float32)
    if frames is None or key is None:
        return Snapshots(measurements, mask, None, found_white.level, found_white)
    wanted = len(measurements) * len(mask)
    _check_size(path, key, frames.shape[-2:], mask)
    if len(frames) < wanted:
        raise UserError(
            f"{path}: {key} has {len(frames)} frames, but {len(measurements)} measurements through a mask for"
            f" {len(mask)} frames are of {wanted}; is it the right mask?"
        )
    if len(frames) != wanted and len(frames) % len(measurements) == 0:
        raise UserError(
            f"{path}: {key} has {len(frames) // len(measurements)} frames for each measurement, the mask {len(mask)}; is it"
            " the right mask?"
        )
    truth = _grouped(frames[:wanted], len(mask), _level(path, frames))
    return Snapshots(measurements, mask, truth, found_white.level, found_white)


def _measured(path: Path, key: str, frames: np.ndarray, mask: np.ndarray, white: float | None) -> Snapshots:
    _check_size(path, key, frames.shape[-2:], mask)
    count = len(frames) // len(mask)
    if not count:
        raise UserError(f"{path}: {key} has {len(frames)} frames, fewer than the {len(mask)} of one measurement")
    white = _level(path, frames) if white is None else white
    truth = _grouped(frames[: count * len(mask)], len(mask), white)
    measurements = np.stack([measure(frames, mask) for frames in truth]).astype(np.float32)
    return Snapshots(measurements, mask, truth, white)


def _grouped(frames: np.ndarray, count: int, white: float) -> np.ndarray:
    """(F,H,W) or (F,3,H,W) as (M,T,H,W) or (M,3,T,H,W) in 0..1."""
    grouped = frames.reshape(-1, count, *frames.shape[1:])
    if grouped.ndim == 5:
        grouped = grouped.transpose(0, 2, 1, 3, 4)
    return np.ascontiguousarray(grouped / np.float32(white), np.float32)


def _levels_of_mask(path: Path, key: str, mask: np.ndarray) -> np.ndarray:
    """A mask of the file's order in 0..1."""
    if mask.ndim == 2 and path.suffix.lower() in ARRAY_SUFFIXES:
        raise UserError(
            f"{path}: {key} is {_shape(mask.shape)}, of one frame, and a measurement is of several; give the mask of each"
        )
    if mask.ndim == 2:
        mask = mask[None] if frames_come_first(path) else mask[..., None]
    if mask.ndim != 3 or 0 in mask.shape:
        order = "frames x height x width" if frames_come_first(path) else "height x width x frames"
        raise UserError(f"{path}: {key} is {_shape(mask.shape)}; it should be {order}")
    largest = float(mask.max())
    if mask.min() < 0 or largest == 0:
        raise UserError(f"{path}: {key} {'is all zero' if largest == 0 else 'has negative values'}; it is no mask")
    if mask.dtype.kind in "ui" and largest > 1:
        mask = mask / largest
    elif largest > MARGIN:
        raise UserError(f"{path}: {key} goes up to {largest:g}; it should be in 0..1")
    return mask


def _as_layers(mask: np.ndarray, axis: int) -> np.ndarray:
    """(T,H,W) of a mask whose axis `axis`, 0 or 2, is T."""
    return np.ascontiguousarray(mask if axis == 0 else mask.transpose(2, 0, 1), np.float32)


def _mask_beside(path: Path, key: str, mask: np.ndarray, measured: np.ndarray | None) -> np.ndarray:
    """The mask (T,H,W) of a file, in the order that the measurement beside it shows, else in the usual one."""
    levels = _levels_of_mask(path, key, mask)
    usual = 0 if frames_come_first(path) else 2
    if measured is None or measured.ndim not in (2, 3):
        return _as_layers(levels, usual)
    other = _as_layers(levels, 2 - usual)
    # the last: all dimensions reversed, as between programs that store columns and rows
    layers = [_as_layers(levels, usual), other, np.ascontiguousarray(other.transpose(0, 2, 1))]
    sizes = _sizes(measured, usual)
    return next((layer for size in sizes for layer in layers if layer.shape[1:] == size), layers[0])


def _sizes(measured: np.ndarray, usual: int) -> list[tuple[int, int]]:
    """The heights and widths that measurements may have, the usual one first."""
    if measured.ndim == 2:
        return [(measured.shape[0], measured.shape[1])]
    first, last = (measured.shape[1], measured.shape[2]), (measured.shape[0], measured.shape[1])
    return [first, last] if usual == 0 else [last, first]


def _as_measurements(path: Path, key: str, array: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """(M,H,W), in the order that fits the mask's size, else in the usual one."""
    first = frames_come_first(path)
    array = array if array.ndim != 2 else array[None] if first else array[..., None]
    if array.ndim != 3 or 0 in array.shape:
        order = "measurements x height x width" if first else "height x width x measurements"
        raise UserError(f"{path}: {key} is {_shape(array.shape)}; it should be {order}")
    usual, other = (array, array.transpose(2, 0, 1)) if first else (array.transpose(2, 0, 1), array)
    chosen = other if usual.shape[1:] != tuple(size) and other.shape[1:] == tuple(size) else usual
    return chosen.astype(np.float32)


def _as_frames(path: Path, key: str, array: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """(F,H,W) or (F,3,H,W), of the file's type, in the order that fits the mask's size, else in the usual one."""
    first = frames_come_first(path)
    if array.ndim == 2:
        array = array[None] if first else array[..., None]
    orders: list[tuple[int, ...]] = []
    if array.ndim == 3:
        orders = [(0, 1, 2), (2, 0, 1)]
    elif array.ndim == 4:
        orders = [(0, 3, 1, 2), (0, 1, 2, 3), (3, 2, 0, 1)]
    if 0 not in array.shape:
        fitting = [array.transpose(order) for order in (orders if first else orders[::-1])]
        fitting = [array for array in fitting if array.ndim == 3 or array.shape[1] == 3]
        if fitting:
            return next((array for array in fitting if array.shape[-2:] == tuple(size)), fitting[0])
    order = "frames x height x width [x 3]" if first else "height x width [x 3] x frames"
    raise UserError(f"{path}: {key} is {_shape(array.shape)}; it should be {order}")


def _level(path: Path, frames: np.ndarray) -> float:
    """What full brightness is in frames."""
    if frames.dtype == np.uint8:
        return 255.0
    largest = float(frames.max())
    for level in (1.0, 255.0, 65535.0):
        if largest <= level * MARGIN:
            return level
    raise UserError(
        f"{path}: the frames go up to {largest:g}, more than 16 bits can hold; tell with --white what white is"
    )


def _check_size(path: Path, key: str, size: Sequence[int], mask: np.ndarray) -> None:
    if tuple(size) != mask.shape[1:]:
        raise UserError(
            f"{path}: {key} is {size[1]}x{size[0]} pixels, the mask {mask.shape[2]}x{mask.shape[1]};"
            " they must be of one camera"
        )


def _lacking(path: Path, what: str) -> UserError:
    keys = ", ".join(f"{name} ({_shape(shape)})" for name, shape in array_names(path).items())
    return UserError(f"{path} holds {what}; it has {keys or 'no variables'}; name them with --keys meas=NAME,mask=NAME")


def _shape(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "a single number"

"""MATLAB files of both kinds, up to v7 (scipy) and v7.3 (HDF5), without running or building anything but arrays."""

from __future__ import annotations

import math
import zlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from qsci_plugins.errors import UserError
from qsci_plugins.extras import naming_extras
from qsci_plugins.files import check_regular
from qsci_plugins.machine import MAX_MEMORY, memory_limit

__all__ = ["check_memory", "mat_keys", "read_mat"]

#: as read, in single precision, and divided by its white
_COPIES = 2

#: what scipy raises on damaged files, beside OSError
_DAMAGE = (
    EOFError,
    IndexError,
    KeyError,
    MemoryError,
    OverflowError,
    TypeError,
    UnicodeDecodeError,
    ValueError,
    zlib.error,
)


def mat_keys(path: str | Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes (in MATLAB's order) of the variables of a .mat file. Errors as in `read_mat`."""
    path = Path(path)
    if _is_hdf5(path):
        return {name: tuple(reversed(array.shape)) for name, array in _hdf5(path).items()}
    with naming_extras():
        from scipy.io import whosmat

    return {name: tuple(shape) for name, shape, _ in _guarded(path, lambda: whosmat(str(path)))}


def check_memory(path: Path, name: str, shape: Sequence[int], value_bytes: int) -> None:
    """Raises UserError for an array that would take more than `machine.memory_limit`, before it is read."""
    needed, limit = _COPIES * math.prod(shape) * value_bytes, memory_limit()
    if needed > limit or any(side < 0 for side in shape):
        size = "x".join(map(str, shape))
        raise UserError(
            f"{path}: {name} says that it is {size}, more than the limit of {limit / 2**30:g} GiB can hold; cut it into"
            f" parts, or raise {MAX_MEMORY}"
        )


def read_mat(path: str | Path, keys: Collection[str]) -> dict[str, np.ndarray]:
    """Those of the variables `keys` that a .mat file has, as numeric arrays in MATLAB's order of dimensions.

    Raises UserError for a file that is missing, empty, no .mat file or damaged, and for a variable of those that holds
    something else than real numbers, NaN or infinity, or, before it is read, says that it takes more than
    `machine.memory_limit`.
    """
    path = Path(path)
    if _is_hdf5(path):
        # HDF5 stores MATLAB's columns as rows
        found: Mapping[str, Any] = {name: array.T for name, array in _hdf5(path, keys).items()}
    else:
        for name, shape in mat_keys(path).items():
            if name in keys:
                _check_claim(path, name, shape)
        from scipy.io import loadmat

        found = _guarded(path, lambda: loadmat(str(path), variable_names=list(keys)))
    return {name: _checked(path, name, found[name]) for name in keys if name in found}


def _checked(path: Path, name: str, array: Any) -> np.ndarray:
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "buif":
        kind = "complex numbers" if getattr(array, "dtype", np.dtype(object)).kind == "c" else "no numbers"
        raise UserError(f"{path}: {name} holds {kind}; it should be an array of real numbers")
    if array.dtype.kind == "f":
        bad = ~np.isfinite(array)
        if bad.any():
            place = tuple(int(index) + 1 for index in np.argwhere(bad)[0])
            raise UserError(
                f"{path}: {name} has {int(bad.sum())} values that are NaN or infinite, the first at {place} of"
                f" {tuple(array.shape)}; replace them"
            )
    return array


def _guarded(path: Path, read: Any) -> Any:
    from scipy.io.matlab import MatReadError

    try:
        if not path.stat().st_size:
            raise UserError(f"{path} is an empty file, not a .mat file")
        return read()
    except (OSError, NotImplementedError, MatReadError, *_DAMAGE) as error:
        if isinstance(error, OSError) and error.strerror:
            raise UserError(f"cannot read {path}: {error.strerror}") from error
        raise UserError(f"{path} is no .mat file, or a damaged or cut off one: {_reason(error)}") from error


def _is_hdf5(path: Path) -> bool:
    """Whether the HDF5 signature stands where v7.3 puts it, behind MATLAB's header of 512 bytes, or at the beginning."""
    check_regular(path)
    try:
        with path.open("rb") as file:
            head = file.read(520)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    return b"\x89HDF\r\n\x1a\n" in (head[:8], head[512:520])


def _hdf5(path: Path, keys: Collection[str] = ()) -> dict[str, Any]:
    """The datasets of these names, read; without names all of them as empty arrays of their shapes."""
    with naming_extras():
        import h5py

    try:
        with h5py.File(path, "r") as file:
            datasets = {name: item for name in file if (item := _own_dataset(path, file, name)) is not None}
            if not keys:
                return {name: np.broadcast_to(np.uint8(0), item.shape or ()) for name, item in datasets.items()}
            wanted = {name: item for name, item in datasets.items() if name in keys}
            for name, item in wanted.items():
                _check_claim(path, name, tuple(reversed(item.shape or ())), item.dtype.itemsize)
                _check_claim(path, f"a part of {name}", item.chunks or (), item.dtype.itemsize)
                if item.shape is None or item.dtype.kind == "O":
                    raise UserError(f"{path}: {name} holds no numbers; it should be an array of real numbers")
            return {name: item[()] for name, item in wanted.items()}
    except (OSError, RuntimeError, *_DAMAGE) as error:
        raise UserError(f"{path} is a damaged or cut off .mat file: {_reason(error)}") from error


def _own_dataset(path: Path, file: Any, name: str) -> Any:
    """A dataset that lies in this file, None for a group; what HDF5 can read out of other files is refused unread.

    MATLAB writes hard links alone. A link by name may lead through an external one.
    """
    import h5py

    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        raise UserError(f"{path}: {name} is a link to elsewhere, which is not followed; save the array itself")
    item = file[name]
    if not isinstance(item, h5py.Dataset):
        return None
    if item.external or item.is_virtual:
        raise UserError(f"{path}: {name} lies in other files, which are not read; save the array itself")
    return item


def _check_claim(path: Path, name: str, shape: tuple[int, ...], value_bytes: int = 8) -> None:
    """A few bytes can say that there are terabytes: before they are allocated."""
    check_memory(path, name, shape, value_bytes)


def _reason(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]

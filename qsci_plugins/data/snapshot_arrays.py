"""The arrays of a snapshot camera's files: .mat, .npz, .npy, TIFF and PNG."""

from __future__ import annotations

import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Collection
from pathlib import Path

import numpy as np

from qsci_plugins.data.folders import is_image
from qsci_plugins.data.image_decoding import without_pillows_limit
from qsci_plugins.data.matlab import check_memory, mat_keys, read_mat
from qsci_plugins.errors import UserError
from qsci_plugins.files import check_regular

__all__ = ["ARRAY_SUFFIXES", "IMAGE_SUFFIXES", "array_names", "frames_come_first", "read_arrays"]

#: files of named arrays, or of one
ARRAY_SUFFIXES = (".mat", ".npy", ".npz")
#: files of one array without a name
IMAGE_SUFFIXES = (".png", ".tif", ".tiff")
_DAMAGE = (
    tokenize.TokenError,
    EOFError,
    IndexError,
    KeyError,
    MemoryError,
    OSError,
    OverflowError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
)


def frames_come_first(path: Path) -> bool:
    """Whether a file of this kind usually counts frames along the first axis, else along the last."""
    return path.suffix.lower() != ".mat"


def array_names(path: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of what a file with names holds."""
    if path.suffix.lower() != ".npz":
        return mat_keys(path)
    try:
        with zipfile.ZipFile(path) as file:
            return {name.removesuffix(".npy"): _npz_claim(file, name)[0] for name in file.namelist()}
    except (zipfile.BadZipFile, *_DAMAGE) as error:
        raise _unreadable(path, ".npz", error) from error


def read_arrays(path: Path, names: Collection[str], only: str) -> dict[str, np.ndarray]:
    """Those of the arrays `names` that a file has; what a file without names holds is called `only`.

    A folder of images is one array (frames,H,W). Raises UserError for a file that is missing, of another kind or
    damaged, holds colours, or anything but finite real numbers.
    """
    check_regular(path)
    suffix = path.suffix.lower()
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if is_image(file))
        if not files:
            raise UserError(f"{path} holds no images; a mask is a file, or a folder with an image for each frame")
        layers = [_image(file) for file in files]
        if len({layer.shape for layer in layers}) > 1:
            raise UserError(f"{path}: the images are not of one size; one folder is one mask")
        return {only: np.stack(layers)}
    if suffix in IMAGE_SUFFIXES:
        return {only: _checked(path, only, _image(path))}
    if suffix == ".npy":
        return {only: _checked(path, only, _npy(path))}
    if suffix == ".npz":
        return {name: _checked(path, name, array) for name, array in _npz(path, names).items()}
    return read_mat(path, names)


def _npy(path: Path) -> np.ndarray:
    try:
        array: np.ndarray = np.load(path, allow_pickle=False, mmap_mode="r")
    except _DAMAGE as error:
        raise _unreadable(path, ".npy", error) from error
    return array


def _npz(path: Path, names: Collection[str]) -> dict[str, np.ndarray]:
    found = {}
    try:
        with zipfile.ZipFile(path) as file:
            for name in file.namelist():
                key = name.removesuffix(".npy")
                if key in names:
                    shape, dtype = _npz_claim(file, name)
                    check_memory(path, key, shape, dtype.itemsize)
                    with file.open(name) as member:
                        found[key] = np.lib.format.read_array(member, allow_pickle=False)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, zlib.error, *_DAMAGE) as error:
        raise _unreadable(path, ".npz", error) from error
    return found


def _npz_claim(file: zipfile.ZipFile, name: str) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type that an array in a zip file says it has, of its header alone."""
    with file.open(name) as member:
        version = np.lib.format.read_magic(member)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(member)
    return shape, dtype


def _image(path: Path) -> np.ndarray:
    """(H,W), or (pages,H,W), of the file's own numbers."""
    try:
        if path.suffix.lower() in (".tif", ".tiff"):
            array = _tiff(path)
        else:
            from PIL import Image

            with without_pillows_limit(), Image.open(path, formats=("PNG", "BMP", "JPEG", "WEBP")) as image:
                check_memory(path, "the picture", image.size, len(image.getbands()))
                array = np.asarray(image.convert("L") if image.mode in ("1", "P") else image)
    except _DAMAGE as error:
        raise _unreadable(path, "image", error) from error
    if array.ndim == 3 and path.suffix.lower() not in (".tif", ".tiff"):
        raise UserError(f"{path} is in colour; measurements and masks are grey")
    return array


def _tiff(path: Path) -> np.ndarray:
    import tifffile

    with tifffile.TiffFile(path) as file:
        value_bytes = max((page.dtype.itemsize for page in file.pages if page.dtype), default=1)
        largest = max((page.shape for page in file.pages), key=math.prod)
        check_memory(path, "a page", largest, len(file.pages) * value_bytes)
        pages = [page.asarray() for page in file.pages]
    if any(page.ndim != 2 for page in pages):
        raise UserError(f"{path} is in colour; measurements and masks are grey")
    if len({page.shape for page in pages}) > 1:
        raise UserError(f"{path}: the pages are not of one size")
    return pages[0] if len(pages) == 1 else np.stack(pages)


def _checked(path: Path, name: str, array: np.ndarray) -> np.ndarray:
    check_memory(path, name, array.shape, array.dtype.itemsize)
    if array.dtype.kind not in "buif":
        kind = "complex numbers" if array.dtype.kind == "c" else "no numbers"
        raise UserError(f"{path}: {name} holds {kind}; it should be an array of real numbers")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise UserError(f"{path}: {name} has values that are NaN or infinite; replace them")
    return array


def _unreadable(path: Path, kind: str, error: Exception) -> UserError:
    if isinstance(error, UserError):
        return error
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    return UserError(f"{path} is no {kind} file that can be read, or a damaged one: {reason.splitlines()[0]}")

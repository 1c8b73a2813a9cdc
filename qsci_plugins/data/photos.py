"""Photos that come with installed packages, and low-resolution patches of any photos for calibration."""

from __future__ import annotations

import io
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from qsci_plugins.data.degradation import bicubic_down
from qsci_plugins.data.images import image_size, read_image
from qsci_plugins.errors import UserError
from qsci_plugins.extras import EXTRAS, missing_extra

__all__ = ["builtin_photos", "calibration_patches", "calibration_tiles", "damaged"]

# Inside the scikit-image and scikit-learn wheels (nothing is downloaded). The two parts are disjoint, so that
# a network is never measured on a photo that it was calibrated with; each has busy and smooth ones.
_CALIBRATION = (
    ("astronaut", "skimage", "data/astronaut.png"),
    ("china", "sklearn", "datasets/images/china.jpg"),
    ("ihc", "skimage", "data/ihc.png"),
    ("motorcycle", "skimage", "data/motorcycle_left.png"),
    ("rocket", "skimage", "data/rocket.jpg"),
)
_EVALUATION = (
    ("chelsea", "skimage", "data/chelsea.png"),
    ("coffee", "skimage", "data/coffee.png"),
    ("flower", "sklearn", "datasets/images/flower.jpg"),
)
#: LR pixels around a patch that reach into it through the bicubic kernel (2 on each side, doubled to be safe)
_MARGIN = 4


def builtin_photos(
    part: Literal["all", "calibration", "evaluation"] = "all",
) -> list[tuple[str, np.ndarray]]:
    """(name, uint8 RGB (H,W,3)) of the colour photos in the scikit-image and scikit-learn packages.

    `calibration` (five photos) and `evaluation` (three others) share none. Raises UserError where a package
    lacks one.
    """
    chosen = {"all": _CALIBRATION + _EVALUATION, "calibration": _CALIBRATION, "evaluation": _EVALUATION}[part]
    return [(name, read_image(_package_file(package, file))) for name, package, file in chosen]


def _package_file(package: str, file: str) -> Path:
    spec = find_spec(package)  # the folder alone: importing scikit-learn takes seconds
    for folder in (spec.submodule_search_locations if spec else None) or ():
        if (path := Path(folder) / file).is_file():
            return path
    if spec is None:
        raise missing_extra(ModuleNotFoundError(name=package))
    distribution = EXTRAS[package][0]
    raise UserError(f"the built-in photo {file} is not in the installed {distribution}; reinstall {distribution}")


def calibration_patches(
    photos: Sequence[np.ndarray | Path],
    count: int,
    patch: int,
    scale: int,
    seed: int = 0,
    *,
    degrade: bool = True,
) -> np.ndarray:
    """`count` random LR patches, uint8 (count,3,patch,patch), the same ones for the same arguments.

    `photos` are uint8 (H,W,3) arrays or image files, of which only the chosen ones are read. With `degrade`
    they are HR, and LR is their MATLAB-bicubic reduction by `scale`; without, patches are cut from them as
    they are. Every photo gives patches in proportion to its area, in random order; photos smaller than a
    patch are left out.
    Raises UserError where none is large enough.
    """
    if count < 1 or patch < 1 or scale < 1:
        raise ValueError(f"count, patch and scale are at least 1, not {count}, {patch}, {scale}")
    factor = scale if degrade else 1
    sizes = np.array([_size(photo) for photo in photos]).reshape(-1, 2) // factor
    areas = np.where(sizes.min(axis=1) >= patch, sizes.prod(axis=1), 0).astype(np.float64)
    if not areas.any():
        largest = sizes[sizes.min(axis=1).argmax()] * factor if len(sizes) else (0, 0)
        raise UserError(
            f"no photo is large enough: {patch}x{patch} patches need {patch * factor}x{patch * factor} "
            f"pixels, the best of {len(sizes)} photos has {largest[1]}x{largest[0]}"
        )
    generator = np.random.default_rng(seed)
    # evenly spaced points on the cumulative area: shares that differ from the ideal by less than one patch
    points = (np.arange(count) + generator.random()) / count * areas.sum()
    chosen = np.minimum(np.searchsorted(np.cumsum(areas), points, side="right"), np.flatnonzero(areas)[-1])
    corners = generator.random((count, 2))
    order = generator.permutation(count)
    patches = np.empty((count, 3, patch, patch), np.uint8)
    for index in np.unique(chosen):
        photo = photos[index]
        pixels = read_image(photo) if isinstance(photo, Path) else photo
        for position in np.flatnonzero(chosen == index):
            patches[order[position]] = _cut(pixels, corners[position], (patch, patch), factor).transpose(2, 0, 1)
    return patches


def calibration_tiles(
    photos: Sequence[np.ndarray | Path],
    count: int,
    tile: tuple[int, int],
    scale: int,
    seed: int = 0,
    *,
    degrade: bool = True,
) -> list[np.ndarray]:
    """About `count` random LR tiles, uint8 (h,w,3), of (height, width) `tile`, or the whole image along a side that is shorter.

    At least one for a photo, up to `count` photos; the same ones for the same arguments, which are those of
    `calibration_patches`. Photos smaller than one LR pixel are left out.
    """
    factor = scale if degrade else 1
    generator = np.random.default_rng(seed)
    tiles = []
    for index in generator.permutation(len(photos))[:count]:
        photo = photos[index]
        sides = [side // factor for side in _size(photo)]
        if 0 in sides:
            continue
        pixels = read_image(photo) if isinstance(photo, Path) else photo
        size = (min(tile[0], sides[0]), min(tile[1], sides[1]))
        # a tile that is the whole image is the same one every time
        several = -(-count // min(count, len(photos))) if size != tuple(sides) else 1
        tiles += [_cut(pixels, corner, size, factor) for corner in generator.random((several, 2))]
    return tiles


#: standard deviation of the noise and quality of the JPEGs that restoration networks are mostly shown
_NOISE = 15.0
_QUALITY = 40


def damaged(patches: np.ndarray, damage: Literal["noise", "jpeg"], seed: int = 0) -> np.ndarray:
    """Patches, uint8 (N,3,h,w), as a network that removes noise or JPEG's blocks gets them, the same for the same `seed`."""
    if damage == "noise":
        noise = np.random.default_rng(seed).normal(0, _NOISE, patches.shape)
        return np.rint(np.clip(patches + noise, 0, 255)).astype(np.uint8)
    result = np.empty_like(patches)
    for index, patch in enumerate(patches):
        with io.BytesIO() as file:
            Image.fromarray(np.ascontiguousarray(patch.transpose(1, 2, 0))).save(file, "JPEG", quality=_QUALITY)
            with Image.open(file) as decoded:
                result[index] = np.asarray(decoded).transpose(2, 0, 1)
    return result


def _size(photo: np.ndarray | Path) -> tuple[int, int]:
    if isinstance(photo, Path):
        return image_size(photo)
    if photo.dtype != np.uint8 or photo.ndim != 3 or photo.shape[2] != 3:
        raise ValueError(f"a photo is uint8 (H,W,3), not {photo.dtype} {photo.shape}")
    return photo.shape[0], photo.shape[1]


def _cut(photo: np.ndarray, corner: np.ndarray, size: tuple[int, int], factor: int) -> np.ndarray:
    """The LR patch of (height, width) at `corner` (fractions of the free height and width); only its surroundings are
    reduced."""
    bounds = []
    for length, fraction, side in zip(photo.shape[:2], corner, size, strict=True):
        low = length // factor
        start = int(fraction * (low - side + 1))
        bounds.append((start, max(0, start - _MARGIN), min(low, start + side + _MARGIN)))
    (top, above, below), (left, before, after) = bounds
    part = photo[above * factor : below * factor, before * factor : after * factor]
    part = bicubic_down(part, factor)
    return part[top - above : top - above + size[0], left - before : left - before + size[1]]

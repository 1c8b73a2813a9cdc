"""Benchmark sets in EDSR's folder layout, and the mean PSNR-Y and SSIM of an upscaler on them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

import numpy as np

from qsci_plugins.data.degradation import bicubic_down, modcrop
from qsci_plugins.data.folders import IMAGE_FORMATS, is_image
from qsci_plugins.data.images import read_image
from qsci_plugins.data.photos import builtin_photos
from qsci_plugins.errors import UserError
from qsci_plugins.evaluation.metrics import psnr_y, ssim_y

__all__ = [
    "BUILTIN",
    "BenchmarkImage",
    "BenchmarkSet",
    "ImageResult",
    "SetResult",
    "evaluate_image",
    "evaluate_upscaler",
    "find_set",
    "set_result",
]

#: the name of the set that needs no data folder: the built-in photos that calibration does not use
BUILTIN = "builtin"

_PLACES = ("", "benchmark", "sr/benchmark")


@dataclass(frozen=True)
class BenchmarkImage:
    """One HR image, a file or uint8 (H,W,3), and its LR file (None: LR is made by MATLAB's bicubic)."""

    name: str
    high: Path | np.ndarray
    low: Path | None = None

    def load(self, scale: int) -> tuple[np.ndarray, np.ndarray]:
        """LR (h,w,3) and HR cropped to (scale*h,scale*w,3), both uint8.

        Raises UserError where they do not belong together, or HR is smaller than `scale`.
        """
        high = read_image(self.high) if isinstance(self.high, Path) else self.high
        if min(high.shape[:2]) < scale:
            raise UserError(f"{self.name} is {high.shape[1]}x{high.shape[0]}, too small for a scale of {scale}")
        if self.low is None:
            return bicubic_down(high, scale), modcrop(high, scale)
        low = read_image(self.low)
        height, width = low.shape[0] * scale, low.shape[1] * scale
        if not (0 <= high.shape[0] - height < scale and 0 <= high.shape[1] - width < scale):
            raise UserError(
                f"{self.low} is {low.shape[1]}x{low.shape[0]}, which is not 1/{scale} of "
                f"{self.high if isinstance(self.high, Path) else self.name} ({high.shape[1]}x{high.shape[0]})"
            )
        return low, high[:height, :width]


@dataclass(frozen=True)
class BenchmarkSet:
    """The images of one benchmark, by name in sorted order, for one scale."""

    name: str
    scale: int
    images: tuple[BenchmarkImage, ...]


@dataclass(frozen=True)
class ImageResult:
    """PSNR in dB and SSIM of the luma, `scale` border pixels cropped; `extras` are the caller's measures."""

    name: str
    psnr_y: float
    ssim: float
    extras: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class SetResult:
    """Means over the images of a set. `dataclasses.asdict` gives plain values for JSON."""

    name: str
    scale: int
    images: list[ImageResult]
    psnr_y: float
    ssim: float
    extras: dict[str, float] = field(default_factory=dict)


def find_set(data: Path | None, name: str, scale: int) -> BenchmarkSet:
    """The set `name` in `data`, `data`/benchmark or `data`/sr/benchmark; "builtin" needs no folder.

    `name` may also be the path of a set's folder, in which case the set has the folder's name.
    A set is a folder with `HR/IMG.png` and `LR_bicubic/X<scale>/IMGx<scale>.png`. Without the latter folder
    LR is made by MATLAB's bicubic; without HR/ the images of the folder itself are HR.
    Raises UserError for a set, an image or an LR file that is not there.
    """
    if name == BUILTIN:
        photos = builtin_photos("evaluation")
        return BenchmarkSet(name, scale, tuple(BenchmarkImage(title, photo) for title, photo in photos))
    if os.path.dirname(name.rstrip("/\\")) and (own := Path(name).expanduser()).is_dir():
        return BenchmarkSet(own.resolve().name, scale, _images(own, scale))
    if data is None:
        raise UserError(f"the set {name!r} needs a data folder; only {BUILTIN!r} comes without one")
    if not data.is_dir():
        raise UserError(f"the data folder {data} does not exist")
    for place in _PLACES:
        if (folder := data / place / name).is_dir():
            return BenchmarkSet(name, scale, _images(folder, scale))
    known = sorted({folder.parent.name for place in _PLACES for folder in (data / place).glob("*/HR")} | {BUILTIN})
    near = get_close_matches(name.lower(), [other.lower() for other in known], 1)
    hint = "".join(f"; nearest is {other!r}" for other in known if other.lower() in near)
    raise UserError(f"no set {name!r} in {data}{hint}; there are {', '.join(known)}")


def _images(folder: Path, scale: int) -> tuple[BenchmarkImage, ...]:
    high = folder / "HR" if (folder / "HR").is_dir() else folder
    files = sorted(file for file in high.iterdir() if is_image(file))
    if not files:
        raise UserError(
            f"no image in {high}; a set is a folder of {', '.join(IMAGE_FORMATS)} files, or has them in HR/"
        )
    low = folder / "LR_bicubic" / f"X{scale}"
    if not low.is_dir():
        return tuple(BenchmarkImage(file.stem, file) for file in files)
    lows = {file.stem: file for file in low.iterdir() if is_image(file)}
    images = []
    for file in files:
        if (partner := lows.get(f"{file.stem}x{scale}")) is None:
            raise UserError(f"{low} has no {file.stem}x{scale}.png for {file}")
        images.append(BenchmarkImage(file.stem, file, partner))
    return tuple(images)


def evaluate_upscaler(
    upscale: Callable[[np.ndarray], np.ndarray],
    images: BenchmarkSet,
    on_image: Callable[[int, int, ImageResult], None] = lambda done, total, result: None,
    extras: Callable[[], Mapping[str, float]] | None = None,
) -> SetResult:
    """Upscales every LR image and compares with HR.

    `upscale` maps uint8 (h,w,3) to uint8 (scale*h,scale*w,3); `extras`, called after each image, returns
    further numbers about it (such as its FAB), which are averaged too. `on_image` gets (images done, images
    in all, result).
    Raises UserError where an image cannot be measured or the network has another scale.
    """
    results: list[ImageResult] = []
    for image in images.images:
        results.append(evaluate_image(upscale, image, images, extras))
        on_image(len(results), len(images.images), results[-1])
    return set_result(images, results)


def evaluate_image(
    upscale: Callable[[np.ndarray], np.ndarray],
    image: BenchmarkImage,
    images: BenchmarkSet,
    extras: Callable[[], Mapping[str, float]] | None = None,
) -> ImageResult:
    """One image of the set `images`; see `evaluate_upscaler`."""
    low, high = image.load(images.scale)
    output = upscale(low)
    if output.shape != high.shape:
        raise UserError(
            f"the network made {output.shape[1]}x{output.shape[0]} pixels of {image.name}'s "
            f"{low.shape[1]}x{low.shape[0]}, but the set {images.name!r} is for a scale of {images.scale}"
        )
    try:
        quality = psnr_y(output, high, images.scale), ssim_y(output, high, images.scale)
    except ValueError as error:
        raise UserError(f"cannot measure {image.name} of set {images.name!r}: {error}") from error
    return ImageResult(image.name, *quality, dict(extras()) if extras else {})


def set_result(images: BenchmarkSet, results: list[ImageResult]) -> SetResult:
    """The means over `results`, one for every image of the set."""
    return SetResult(
        images.name,
        images.scale,
        results,
        float(np.mean([result.psnr_y for result in results])),
        float(np.mean([result.ssim for result in results])),
        {key: float(np.mean([result.extras[key] for result in results])) for key in results[0].extras},
    )

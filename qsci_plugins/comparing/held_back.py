"""Images that calibration does not see, and what the float network makes of them: a set like any other."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from qsci_plugins.architectures.network import Network
from qsci_plugins.comparing.fingerprints import content_fingerprint
from qsci_plugins.data.degradation import bicubic_down
from qsci_plugins.data.folders import find_images
from qsci_plugins.data.images import read_image, write_image
from qsci_plugins.data.photos import builtin_photos, damaged
from qsci_plugins.errors import UserError
from qsci_plugins.files import write_text
from qsci_plugins.openvino.tiling import Image

__all__ = ["FLOAT_OUTPUT", "held_back_images", "split_images", "write_float_output"]

#: the name of the set: its HR images are the float network's own output
FLOAT_OUTPUT = "float_output"

#: at most so many images are measured on, each at most so many pixels high and wide, and so many calibrated on
_MOST, _SIDE, _CALIBRATING = 10, 192, 200

#: what the set was made of; inside it, so that it goes where the set goes
_ORIGIN = ".made_of"


def split_images(folder: Path) -> tuple[list[Path], list[Path]]:
    """The images below a folder to calibrate on, and those to measure on: every second one, but no more than ten.

    Raises UserError for a folder with fewer than two images.
    """
    files = find_images(folder)
    if len(files) < 2:
        raise UserError(f"{folder} holds one image; give at least two, as some calibrate and others measure")
    stride = max(2, -(-len(files) // _MOST))
    measured = files[::stride]
    others = [file for index, file in enumerate(files) if index % stride]
    return others[:: -(-len(others) // _CALIBRATING)], measured


def held_back_images(files: Sequence[Path] | None, network: Network) -> list[tuple[str, Image]]:
    """(name, uint8 (h,w,3)) of inputs of a network, the middle of large ones; without files, of the built-in photos.

    Those are the ones that calibration does not use, made smaller by the network's scale, or with what it removes.
    """
    if files is not None:
        return [(f"{index:02}_{file.stem}", _middle(read_image(file))) for index, file in enumerate(files)]
    small = [(name, _middle(bicubic_down(photo, network.scale))) for name, photo in builtin_photos("evaluation")]
    if not network.removes:
        return small
    return [
        (name, np.ascontiguousarray(damaged(image.transpose(2, 0, 1)[None], network.removes)[0].transpose(1, 2, 0)))
        for name, image in small
    ]


def write_float_output(
    images: Sequence[tuple[str, Image]], upscale: Callable[[Image], Image], network: str, scale: int, folder: Path
) -> str:
    """Writes `folder`/float_output in EDSR's layout, unless it is there: images as LR, the float network's output as HR.

    `network` is the fingerprint of that. Returns the set's own, which it keeps.
    """
    place = folder / FLOAT_OUTPUT
    origin = content_fingerprint([network, scale, *(part for image in images for part in image)])
    noted = place / _ORIGIN
    if noted.is_file() and noted.read_text(encoding="utf-8") == origin:
        return origin
    shutil.rmtree(place, ignore_errors=True)
    high, low = place / "HR", place / "LR_bicubic" / f"X{scale}"
    high.mkdir(parents=True)
    low.mkdir(parents=True)
    for name, image in images:
        write_image(low / f"{name}x{scale}.png", image)
        write_image(high / f"{name}.png", upscale(image))
    write_text(noted, origin)
    return origin


def _middle(image: Image) -> Image:
    top, left = (max(0, (side - _SIDE) // 2) for side in image.shape[:2])
    return np.ascontiguousarray(image[top : top + _SIDE, left : left + _SIDE])

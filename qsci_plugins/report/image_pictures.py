"""Pictures of a finished run on images: before and after, and where the bits went."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from qsci_plugins.data.degradation import imresize
from qsci_plugins.data.images import read_image, write_image
from qsci_plugins.evaluation.metrics import psnr_y
from qsci_plugins.openvino.runtime import TileRoute, Upscaler
from qsci_plugins.pipeline.image_prepare import ImagePiece
from qsci_plugins.pipeline.run import MODEL, RunResult
from qsci_plugins.report.figures import TileBits, bit_map, busiest_crop, comparison, tile_areas
from qsci_plugins.report.pictures import WINDOW, Box, Picture, ShownForm, add_pictures, encode

__all__ = ["draw_images"]

#: images of the first set that get pictures
_IMAGES = 3
#: side of the shown detail in the result, and how often its pixels are repeated
_DETAIL, _ZOOM = 160, 2
#: the widest bit map, and the widest in report.html
_WIDTH, _SHOWN_WIDTH = 1200, 640
_TITLES = {"bicubic": "bicubic", "float": "float", "torch": "quantized, torch", "openvino": "quantized, OpenVINO"}


def draw_images(result: RunResult, folder: Path) -> list[str]:
    """Writes before_after_*.png and bits_*.png of the first set's first images, and returns the names; and pictures/.

    Bits are drawn of what ran patch by patch in torch, and of models with routes.
    """
    names, pictures = [], []
    upscaler = Upscaler(folder / MODEL, precision="auto") if (folder / MODEL).is_dir() else None
    for piece in result.prepared.sets[0].pieces[:_IMAGES]:
        name, scale = piece.image.name, piece.images.scale
        low, high = piece.image.load(scale)
        forms = {"bicubic": imresize(low, size=high.shape[:2]), "float": result.forms["float"].upscale(low)}
        if upscaler is not None:
            forms["openvino"] = upscaler.upscale(low)
            tiles, possible = _tiles(upscaler.last_routes, scale, high.shape[:2]), _route_bits(upscaler)
        if upscaler is None or result.forms["torch"].patches is not None:
            torch_output = result.forms["torch"].upscale(low)
            tiles, possible = _patches(result, scale, high.shape[:2])
            if upscaler is None:
                forms["torch"] = torch_output
        decibels = {form: psnr_y(pixels, high, scale) for form, pixels in forms.items()}
        write_image(folder / f"before_after_{name}.png", _before_after(forms, decibels, high))
        names.append(f"before_after_{name}.png")
        pictures.append(_picture(name, forms, decibels, high, tiles, possible))
        if result.forms["torch"].patches is not None:
            # the same colours in every picture
            drawn = bit_map(torch_output, tiles, f"Mean bits of {len(tiles)} patches:", possible)
        elif upscaler is not None and len(upscaler.manifest.routes) > 1:
            shown, tiles, share = _enlarged(upscaler, piece)
            drawn = bit_map(shown, tiles, f"Mean bits of {len(tiles)} tiles:", possible)
            pictures.append(_bit_picture(f"{name}, the photo itself enlarged x{scale}", shown, tiles, possible, share))
        else:
            continue
        names.append(f"bits_{name}.png")
        write_image(folder / names[-1], drawn)
    add_pictures(folder, pictures)
    return names


def _before_after(forms: Mapping[str, np.ndarray], decibels: Mapping[str, float], high: np.ndarray) -> np.ndarray:
    """A detail of bicubic, every form and the original, side by side, with the PSNR of the whole image."""
    top, left = busiest_crop(high, _DETAIL)
    panels = [
        (f"{_TITLES[form]}, {decibels[form]:.2f} dB", _detail(pixels, top, left)) for form, pixels in forms.items()
    ]
    return comparison([*panels, ("original", _detail(high, top, left))])


def _detail(picture: np.ndarray, top: int, left: int) -> np.ndarray:
    part = picture[top : top + _DETAIL, left : left + _DETAIL]
    return part.repeat(_ZOOM, axis=0).repeat(_ZOOM, axis=1)


def _patches(result: RunResult, scale: int, size: tuple[int, int]) -> tuple[list[TileBits], list[float]]:
    """The patches of the image that torch has just enlarged to this size; none where it ran as a whole."""
    form = result.forms["torch"]
    tiles = []
    for patch in form.patches() if form.patches is not None else ():
        top, left = patch.top * scale, patch.left * scale
        bottom, right = min((patch.top + patch.height) * scale, size[0]), (patch.left + patch.width) * scale
        tiles.append(TileBits(top, left, bottom - top, min(right, size[1]) - left, patch.fab))
    return tiles, list(result.quantized.scheme.possible_bits)


def _route_bits(upscaler: Upscaler) -> list[float]:
    return [route.fab for route in upscaler.manifest.routes]


def _tiles(routes: Sequence[TileRoute], ratio: float, size: tuple[int, int]) -> list[TileBits]:
    """The tiles of an input in its output of this size, `ratio` times as large."""
    tiles = []
    for tile in routes:
        top, left = round(tile.y * ratio), round(tile.x * ratio)
        bottom, right = round((tile.y + tile.height) * ratio), round((tile.x + tile.width) * ratio)
        tiles.append(TileBits(top, left, min(bottom, size[0]) - top, min(right, size[1]) - left, tile.bits))
    return tiles


def _enlarged(upscaler: Upscaler, piece: ImagePiece) -> tuple[np.ndarray, list[TileBits], float]:
    """The image itself (not its reduction, which may be a single tile) enlarged, its tiles, and the share of its width."""
    photo = read_image(piece.image.high) if isinstance(piece.image.high, Path) else piece.image.high
    enlarged = upscaler.upscale(photo)
    ratio = min(1.0, _WIDTH / enlarged.shape[1])
    shown = _resized(enlarged, ratio)
    return shown, _tiles(upscaler.last_routes, ratio * upscaler.scale, shown.shape[:2]), ratio


def _resized(image: np.ndarray, ratio: float) -> np.ndarray:
    size = (max(1, round(image.shape[1] * ratio)), max(1, round(image.shape[0] * ratio)))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))


def _picture(
    name: str,
    forms: Mapping[str, np.ndarray],
    decibels: Mapping[str, float],
    high: np.ndarray,
    tiles: Sequence[TileBits],
    possible: Sequence[float],
) -> Picture:
    """What report.html shows of an image: its busiest window in every form."""
    top, left = busiest_crop(high, WINDOW)
    height, width = min(WINDOW, high.shape[0]), min(WINDOW, high.shape[1])

    def cut(pixels: np.ndarray) -> bytes:
        return encode(pixels[None, top : top + height, left : left + width])

    keys = {"torch": "ours", "openvino": "ours"}
    shown = [
        ShownForm(
            keys.get(form, form), _TITLES[form], None if math.isinf(db := decibels[form]) else round(db, 2), cut(pixels)
        )
        for form, pixels in forms.items()
    ]
    areas = tile_areas(tiles, high.shape[0], high.shape[1], possible) if tiles else []
    boxes = [
        Box(
            max(0, a[0] - top), max(0, a[1] - left), min(height, a[2] - top), min(width, a[3] - left), tile.bits, colour
        )
        for (a, colour), tile in zip(areas, tiles, strict=True)
        if a[0] < top + height and a[2] > top and a[1] < left + width and a[3] > left
    ]
    note = (
        ""
        if (height, width) == high.shape[:2]
        else f"Shown: {width}x{height} of {high.shape[1]}x{high.shape[0]} pixels."
    )
    focus = _focus(high[top : top + height, left : left + width])
    truth = ShownForm("truth", "truth", None, cut(high))
    return Picture(name, height, width, focus, (*shown, truth), tuple(boxes), note)


def _bit_picture(
    name: str, shown: np.ndarray, tiles: Sequence[TileBits], possible: Sequence[float], share: float
) -> Picture:
    """The bit map of an enlarged photo."""
    ratio = min(1.0, _SHOWN_WIDTH / shown.shape[1])
    small = _resized(shown, ratio)
    areas = tile_areas(tiles, shown.shape[0], shown.shape[1], possible)
    boxes = []
    for (area, colour), tile in zip(areas, tiles, strict=True):
        top, left, bottom, right = (round(side * ratio) for side in area)
        boxes.append(Box(top, left, bottom, right, tile.bits, colour))
    form = ShownForm("ours", _TITLES["openvino"], None, encode(small[None], 90))
    note = f"{len(tiles)} tiles, shown at {share * ratio:.0%} of their width."
    return Picture(name, small.shape[0], small.shape[1], _focus(small), (form,), tuple(boxes), note)


def _focus(window: np.ndarray) -> tuple[int, int]:
    """(x, y) of the middle of the busiest 48x48 pixels."""
    top, left = busiest_crop(window, 48)
    return left + min(48, window.shape[1]) // 2, top + min(48, window.shape[0]) // 2

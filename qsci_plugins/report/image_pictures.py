"""Pictures of a finished run on images: before and after, and where the bits went."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from qsci_plugins.data.degradation import imresize
from qsci_plugins.data.images import read_image, write_image
from qsci_plugins.evaluation.benchmark import BenchmarkImage, BenchmarkSet
from qsci_plugins.evaluation.metrics import psnr_y
from qsci_plugins.openvino.runtime import Upscaler
from qsci_plugins.pipeline.run import MODEL, RunResult
from qsci_plugins.report.figures import TileBits, bit_map, busiest_crop, comparison

__all__ = ["draw_images"]

#: images of the first set that get pictures
_IMAGES = 3
#: side of the shown detail in the result, and how often its pixels are repeated
_DETAIL, _ZOOM = 160, 2
#: the widest bit map
_WIDTH = 1200


def draw_images(result: RunResult, folder: Path) -> list[str]:
    """Writes before_after_*.png and bits_*.png of the first set's first images, and returns the names.

    Bits are drawn of what ran patch by patch in torch, and of models with routes.
    """
    names = []
    for pieces in result.prepared.sets[:1]:
        upscaler = Upscaler(folder / MODEL, precision="auto") if (folder / MODEL).is_dir() else None
        for piece in pieces.pieces[:_IMAGES]:
            image, benchmark = piece.image, piece.images
            name = f"before_after_{image.name}.png"
            write_image(folder / name, _before_after(result, benchmark, image))
            names.append(name)
            drawn = _patch_bits(result, benchmark, image)
            if drawn is None and upscaler is not None and len(upscaler.manifest.routes) > 1:
                drawn = _bits(upscaler, image)
            if drawn is not None:
                name = f"bits_{image.name}.png"
                write_image(folder / name, drawn)
                names.append(name)
    return names


def _before_after(result: RunResult, benchmark: BenchmarkSet, image: BenchmarkImage) -> np.ndarray:
    """A detail of bicubic, every form and the original, side by side, with the PSNR of the whole image."""
    low, high = image.load(benchmark.scale)
    pictures = {"bicubic": imresize(low, size=high.shape[:2])}
    titles = {"float": "float", "torch": "quantized, torch", "openvino": "quantized, OpenVINO"}
    shown = [form for form in ("float", "openvino" if "openvino" in result.forms else "torch") if form in result.forms]
    pictures |= {titles[form]: result.forms[form].upscale(low) for form in shown}
    top, left = busiest_crop(high, _DETAIL)
    panels = []
    for title, picture in pictures.items():
        decibels = psnr_y(picture, high, benchmark.scale)
        panels.append((f"{title}, {decibels:.2f} dB", _detail(picture, top, left)))
    panels.append(("original", _detail(high, top, left)))
    return comparison(panels)


def _detail(picture: np.ndarray, top: int, left: int) -> np.ndarray:
    part = picture[top : top + _DETAIL, left : left + _DETAIL]
    return part.repeat(_ZOOM, axis=0).repeat(_ZOOM, axis=1)


def _patch_bits(result: RunResult, benchmark: BenchmarkSet, image: BenchmarkImage) -> np.ndarray | None:
    """The result with the bits of every patch of its low-resolution image; None where it runs as a whole."""
    form = result.forms["torch"]
    if form.patches is None:
        return None
    low, _ = image.load(benchmark.scale)
    shown = form.upscale(low)
    scale = benchmark.scale
    tiles = []
    for patch in form.patches():
        top, left = patch.top * scale, patch.left * scale
        bottom, right = min((patch.top + patch.height) * scale, shown.shape[0]), (patch.left + patch.width) * scale
        tiles.append(TileBits(top, left, bottom - top, min(right, shown.shape[1]) - left, patch.fab))
    # the same colours in every picture
    possible = result.quantized.scheme.possible_bits
    return bit_map(shown, tiles, f"Mean bits of {len(tiles)} patches:", possible)


def _bits(upscaler: Upscaler, image: BenchmarkImage) -> np.ndarray:
    """The image itself (not its reduction, which may be a single tile) enlarged, with the bits of every tile."""
    photo = read_image(image.high) if isinstance(image.high, Path) else image.high
    enlarged = upscaler.upscale(photo)
    ratio = min(1.0, _WIDTH / enlarged.shape[1])
    size = (max(1, round(enlarged.shape[1] * ratio)), max(1, round(enlarged.shape[0] * ratio)))
    shown = np.asarray(Image.fromarray(enlarged).resize(size, Image.Resampling.LANCZOS))
    ratio *= upscaler.scale
    tiles = []
    for tile in upscaler.last_routes:
        top, left = round(tile.y * ratio), round(tile.x * ratio)
        bottom, right = round((tile.y + tile.height) * ratio), round((tile.x + tile.width) * ratio)
        tiles.append(TileBits(top, left, min(bottom, size[1]) - top, min(right, size[0]) - left, tile.bits))
    possible = [route.fab for route in upscaler.manifest.routes]
    return bit_map(shown, tiles, f"Mean bits of {len(tiles)} tiles:", possible)

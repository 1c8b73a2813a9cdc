"""Forms of a network that enlarges images, and its pieces: the images of benchmark sets."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from qsci_plugins.evaluation.benchmark import BenchmarkImage, BenchmarkSet, evaluate_image
from qsci_plugins.evaluation.bit_meter import BitMeter, ImageForm
from qsci_plugins.pipeline.task import Loaded, PieceResult, PieceSet
from qsci_plugins.schemes.scheme import QuantizedNetwork

__all__ = ["ImagePiece", "image_meter", "openvino_form", "pieces_of", "score_image"]


@dataclass(frozen=True)
class ImagePiece:
    """An image and the set that it is of."""

    image: BenchmarkImage
    images: BenchmarkSet


def pieces_of(images: BenchmarkSet) -> PieceSet:
    """A set with its images as pieces."""
    return PieceSet(images.name, [ImagePiece(image, images) for image in images.images])


def score_image(form: ImageForm, piece: ImagePiece) -> PieceResult:
    """PSNR and SSIM of the luma; see `evaluation.benchmark.evaluate_upscaler`."""
    result = evaluate_image(form.upscale, piece.image, piece.images, form.extras)
    extras = {key: value for key, value in result.extras.items() if key != "fab"}
    return PieceResult(result.name, result.psnr_y, result.ssim, result.extras.get("fab"), extras)


def openvino_form(folder: Path, threads: int | None = None) -> ImageForm:
    """The model folder through its runtime; an image's FAB is that of its tiles, weighted by their area.

    A tile's is that of its route, or what a graph that chooses its bits itself (`dynamic`, CADyQ's) says.
    """
    from qsci_plugins.openvino.runtime import Upscaler  # which a float training does without

    upscaler = Upscaler(folder, precision="auto", threads=threads)

    def fab() -> dict[str, float]:
        areas = [tile.height * tile.width for tile in upscaler.last_routes]
        bits = [tile.bits for tile in upscaler.last_routes]
        return {"fab": sum(area * width for area, width in zip(areas, bits, strict=True)) / sum(areas)}

    return ImageForm(upscaler.upscale, fab)


def image_meter(loaded: Loaded, quantized: QuantizedNetwork) -> BitMeter:
    """What runs the quantized network in torch, on whole images or as the recipe's `inference` says."""
    settings = loaded.recipe.inference
    if settings is None:
        return BitMeter(quantized, loaded.network)
    from qsci_plugins.pipeline.patchwise import PatchMeter

    return PatchMeter(quantized, loaded.network, settings.patch, settings.step, settings.batch)

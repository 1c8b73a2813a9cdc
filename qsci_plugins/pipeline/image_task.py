"""Enlarging images, as the pipeline's task."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qsci_plugins.pipeline.image_prepare import (
    find_sets,
    fit_thresholds,
    load_networks,
    pieces_of,
    prepare,
    prepare_training,
    resolve,
)
from qsci_plugins.pipeline.task import Loaded, Macs, PieceResult, PieceSet, Prepared, Shape, Trainable
from qsci_plugins.progress import Progress
from qsci_plugins.schemes.scheme import QuantizedNetwork

if TYPE_CHECKING:
    import openvino

    from qsci_plugins.evaluation.baselines import Sample
    from qsci_plugins.evaluation.bit_meter import BitMeter, ImageForm
    from qsci_plugins.openvino.signature import ImageSignature
    from qsci_plugins.pipeline.image_prepare import ImagePiece
    from qsci_plugins.pipeline.metrics import Journal
    from qsci_plugins.recipes.schema import Benchmark, FloatRecipe, Recipe
    from qsci_plugins.training.loop import TrainResult

__all__ = ["ImageTask"]

#: patches that NNCF's default quantization sees where only its speed is of interest
_SAMPLES = 4


class ImageTask:
    """See `task.Task`; pieces are `ImagePiece`, forms `evaluation.bit_meter.ImageForm`."""

    name = "sr"

    def resolve(self, recipe: Any) -> Any:
        return resolve(recipe)

    def load(self, recipe: Recipe | FloatRecipe) -> Loaded:
        return load_networks(recipe)

    def prepare(self, recipe: Recipe, data: Path | None, progress: Progress) -> Prepared:
        return prepare(recipe, data, progress)

    def prepare_training(self, recipe: FloatRecipe, data: Path | None, progress: Progress) -> Trainable:
        return prepare_training(recipe, data, progress)

    def sets(
        self, benchmarks: Sequence[Benchmark], shape: Shape, data: Path | None, names: Sequence[str] | None = None
    ) -> list[PieceSet]:
        return [pieces_of(images) for images in find_sets(benchmarks, data, shape.scale, names)]

    def train(
        self, prepared: Prepared, quantized: QuantizedNetwork, work: Path, journal: Journal, progress: Progress
    ) -> None:
        if prepared.recipe.train is not None:
            from qsci_plugins.pipeline.image_training import train_quantized

            train_quantized(prepared, quantized, work, journal, progress)
        fit_thresholds(prepared, quantized)

    def train_float(self, trainable: Trainable, work: Path, journal: Journal, progress: Progress) -> TrainResult:
        from qsci_plugins.pipeline.image_training import train_float

        return train_float(trainable, work, journal, progress)

    def signature(self, loaded: Loaded) -> ImageSignature:
        from qsci_plugins.openvino.signature import ImageSignature

        height, width = loaded.recipe.export.openvino.tile
        network, period = loaded.network, loaded.period if isinstance(loaded, Prepared) else 1
        return ImageSignature((height, width), network.value_range, network.scale, period)

    def meter(self, loaded: Loaded, quantized: QuantizedNetwork) -> BitMeter:
        """On whole images, or as the recipe's `inference` says."""
        from qsci_plugins.evaluation.bit_meter import BitMeter

        settings = loaded.recipe.inference
        if settings is None:
            return BitMeter(quantized, loaded.network)
        from qsci_plugins.pipeline.patchwise import PatchMeter

        return PatchMeter(quantized, loaded.network, settings.patch, settings.step, settings.batch)

    def forms(self, loaded: Loaded, meter: BitMeter | None, model: Path | None) -> dict[str, ImageForm]:
        from qsci_plugins.evaluation.bit_meter import float_form

        forms = {"float": float_form(loaded.float_network)}
        if meter is not None:
            forms["torch"] = meter.form()
        if model is not None:
            forms["openvino"] = self.exported(model)
        return forms

    def exported(self, model: Path, threads: int | None = None) -> ImageForm:
        return _openvino_form(model, threads)

    def score(self, form: ImageForm, piece: ImagePiece) -> PieceResult:
        """PSNR and SSIM of the luma; see `evaluation.benchmark.evaluate_upscaler`."""
        from qsci_plugins.evaluation.benchmark import evaluate_image

        result = evaluate_image(form.upscale, piece.image, piece.images, form.extras)
        extras = {key: value for key, value in result.extras.items() if key != "fab"}
        return PieceResult(result.name, result.psnr_y, result.ssim, result.extras.get("fab"), extras)

    def content(self, piece: ImagePiece) -> Iterator[Any]:
        yield from (piece.images.scale, piece.image.high, piece.image.low)

    def macs(self, loaded: Loaded) -> Macs:
        """For an image of 1280x720 pixels of output."""
        from qsci_plugins.evaluation.bit_meter import macs_720p

        size, macs = macs_720p(loaded.network)
        return Macs([*size], macs, macs)

    def operations(self, macs: Macs, quantized: QuantizedNetwork, meter: BitMeter) -> dict[str, Any]:
        from qsci_plugins.evaluation.bit_meter import quantized_operations
        from qsci_plugins.evaluation.complexity import ops

        counts = quantized_operations(macs.network, quantized, meter)
        return {"input": macs.input, "float": ops(macs.float_network, {}), "quantized": counts}

    def float_graph(self, loaded: Loaded) -> openvino.Model:
        from qsci_plugins.evaluation.baselines import float_graph

        height, width = loaded.recipe.export.openvino.tile
        return float_graph(loaded.float_network, (height, width))

    def samples(self, prepared: Prepared, *, every: bool = False) -> list[Sample]:
        from qsci_plugins.evaluation.baselines import tile_samples

        height, width = prepared.recipe.export.openvino.tile
        patches = [patch for batch in prepared.batches for patch in batch]
        return list(tile_samples(patches[: None if every else _SAMPLES], (height, width)))


def _openvino_form(folder: Path, threads: int | None = None) -> ImageForm:
    """The model folder through its runtime; an image's FAB is that of its tiles, weighted by their area.

    A tile's is that of its route, or what a graph that chooses its bits itself (`dynamic`, CADyQ's) says.
    """
    from qsci_plugins.evaluation.bit_meter import ImageForm
    from qsci_plugins.openvino.runtime import Upscaler

    upscaler = Upscaler(folder, precision="auto", threads=threads)

    def fab() -> dict[str, float]:
        areas = [tile.height * tile.width for tile in upscaler.last_routes]
        bits = [tile.bits for tile in upscaler.last_routes]
        return {"fab": sum(area * width for area, width in zip(areas, bits, strict=True)) / sum(areas)}

    return ImageForm(upscaler.upscale, fab)

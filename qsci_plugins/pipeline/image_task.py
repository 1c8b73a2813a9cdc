"""Enlarging images, as the pipeline's task."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qsci_plugins.pipeline.image_forms import image_meter, openvino_form, pieces_of, score_image
from qsci_plugins.pipeline.image_prepare import find_sets, load_networks, prepare, prepare_training, resolve
from qsci_plugins.pipeline.task import Loaded, Macs, PieceResult, PieceSet, Prepared, Shape, Trainable
from qsci_plugins.progress import Progress
from qsci_plugins.schemes.scheme import QuantizedNetwork

if TYPE_CHECKING:
    import openvino

    from qsci_plugins.evaluation.baselines import Sample
    from qsci_plugins.evaluation.bit_meter import BitMeter, ImageForm
    from qsci_plugins.openvino.signature import ImageSignature
    from qsci_plugins.pipeline.image_forms import ImagePiece
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
        if prepared.recipe.train is None:
            return
        from qsci_plugins.pipeline.image_training import train_quantized

        train_quantized(prepared, quantized, work, journal, progress)

    def train_float(self, trainable: Trainable, work: Path, journal: Journal, progress: Progress) -> TrainResult:
        from qsci_plugins.pipeline.image_training import train_float

        return train_float(trainable, work, journal, progress)

    def signature(self, loaded: Loaded) -> ImageSignature:
        from qsci_plugins.openvino.signature import ImageSignature

        height, width = loaded.recipe.export.openvino.tile
        network, period = loaded.network, loaded.period if isinstance(loaded, Prepared) else 1
        return ImageSignature((height, width), network.value_range, network.scale, period)

    def meter(self, loaded: Loaded, quantized: QuantizedNetwork) -> BitMeter:
        return image_meter(loaded, quantized)

    def forms(self, loaded: Loaded, meter: BitMeter | None, model: Path | None) -> dict[str, ImageForm]:
        from qsci_plugins.evaluation.bit_meter import float_form

        forms = {"float": float_form(loaded.float_network)}
        if meter is not None:
            forms["torch"] = meter.form()
        if model is not None:
            forms["openvino"] = self.exported(model)
        return forms

    def exported(self, model: Path, threads: int | None = None) -> ImageForm:
        return openvino_form(model, threads)

    def score(self, form: ImageForm, piece: ImagePiece) -> PieceResult:
        return score_image(form, piece)

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

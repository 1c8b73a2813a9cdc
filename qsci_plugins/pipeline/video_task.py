"""Reconstructing video from snapshots, as the pipeline's task."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qsci_plugins.pipeline.task import Loaded, Macs, PieceResult, PieceSet, Prepared, Shape, Trainable
from qsci_plugins.pipeline.video_forms import (
    float_video_form,
    openvino_video_form,
    quantized_video_form,
    score_scene,
)
from qsci_plugins.pipeline.video_prepare import find_scenes, load, prepare, prepare_training, resolve
from qsci_plugins.progress import Progress
from qsci_plugins.schemes.scheme import QuantizedNetwork

if TYPE_CHECKING:
    import openvino

    from qsci_plugins.evaluation.baselines import Sample
    from qsci_plugins.evaluation.bit_meter import BitMeter
    from qsci_plugins.openvino.signature import VideoSignature
    from qsci_plugins.pipeline.journal import Journal
    from qsci_plugins.pipeline.video_forms import Scene, VideoForm
    from qsci_plugins.recipes.schema import FloatVideoRecipe, VideoRecipe, VideoSet
    from qsci_plugins.training.loop import TrainResult

__all__ = ["VideoTask"]

#: height and width that operations are counted for, as in the papers
_COUNTED = (256, 256)

#: clips that NNCF's default quantization sees where only its speed is of interest
_SAMPLES = 2


class VideoTask:
    """See `task.Task`; pieces are `Scene`, forms `VideoForm`."""

    name = "sci"

    def resolve(self, recipe: Any) -> Any:
        return resolve(recipe)

    def load(self, recipe: VideoRecipe | FloatVideoRecipe) -> Loaded:
        return load(recipe)

    def prepare(self, recipe: VideoRecipe, data: Path | None, progress: Progress) -> Prepared:
        return prepare(recipe, data, progress)

    def prepare_training(self, recipe: FloatVideoRecipe, data: Path | None, progress: Progress) -> Trainable:
        return prepare_training(recipe, data, progress)

    def sets(
        self, benchmarks: Sequence[VideoSet], shape: Shape, data: Path | None, names: Sequence[str] | None = None
    ) -> list[PieceSet]:
        assert shape.frames is not None
        return find_scenes(benchmarks, shape.frames, shape.channels == 3, data, names)

    def train(
        self, prepared: Prepared, quantized: QuantizedNetwork, work: Path, journal: Journal, progress: Progress
    ) -> None:
        if prepared.recipe.train is not None:
            from qsci_plugins.pipeline.video_training import train

            train(prepared, quantized, work, journal, progress)
        quantized.model.eval()

    def train_float(self, trainable: Trainable, work: Path, journal: Journal, progress: Progress) -> TrainResult:
        from qsci_plugins.pipeline.video_training import train_float

        return train_float(trainable, work, journal, progress)

    def signature(self, loaded: Loaded) -> VideoSignature:
        from qsci_plugins.openvino.signature import VideoSignature

        assert loaded.frames is not None
        height, width = loaded.recipe.export.openvino.tile
        network = loaded.network
        return VideoSignature((height, width), network.value_range, loaded.frames, network.channels)

    def meter(self, loaded: Loaded, quantized: QuantizedNetwork) -> BitMeter:
        from qsci_plugins.evaluation.bit_meter import BitMeter

        return BitMeter(quantized, loaded.network)

    def forms(self, loaded: Loaded, meter: BitMeter | None, model: Path | None) -> dict[str, VideoForm]:
        forms = {"float": float_video_form(loaded.float_network)}
        if meter is not None:
            forms["torch"] = quantized_video_form(meter.quantized, loaded.network, meter)
        if model is not None:
            forms["openvino"] = self.exported(model)
        return forms

    def exported(self, model: Path, threads: int | None = None) -> VideoForm:
        return openvino_video_form(model, threads)

    def score(self, form: VideoForm, piece: Scene) -> PieceResult:
        return score_scene(form, piece)

    def content(self, piece: Scene) -> Iterator[Any]:
        yield from (piece.source.mask, piece.measurements)
        for measurement, truth in piece.source.pairs():
            yield from (measurement, truth)

    def macs(self, loaded: Loaded) -> Macs:
        """For one measurement of 256x256, of the float network without shortcuts."""
        from qsci_plugins.evaluation.complexity import count_macs

        assert loaded.frames is not None
        height, width = _COUNTED
        shapes = ((1, height, width), (1, loaded.frames, height, width), (1, height, width))
        macs = count_macs(loaded.float_network.module, *shapes)
        same = loaded.network is loaded.float_network
        return Macs([loaded.frames, height, width], macs, macs if same else count_macs(loaded.network.module, *shapes))

    def operations(self, macs: Macs, quantized: QuantizedNetwork, meter: BitMeter) -> dict[str, Any]:
        from qsci_plugins.evaluation.complexity import ops
        from qsci_plugins.evaluation.published_cost import product_bits

        bits = {name: layer for name, layer in meter.bits().items() if name in macs.network}
        return {
            "input": macs.input,
            "float": ops(macs.float_network, {}),
            "quantized": ops(macs.network, product_bits(macs.network, bits)),
        }

    def float_graph(self, loaded: Loaded) -> openvino.Model:
        from qsci_plugins.openvino.convert import convert_like

        signature = self.signature(loaded)
        graph = convert_like(loaded.float_network.module, signature.examples(), tuned=False)
        return signature.with_ports(graph)

    def samples(self, prepared: Prepared, *, every: bool = False) -> list[Sample]:
        import torch

        from qsci_plugins.evaluation.baselines import tile_samples

        height, width = prepared.recipe.export.openvino.tile
        parts = (torch.cat(part)[: None if every else _SAMPLES] for part in zip(*prepared.batches, strict=True))
        return list(zip(*(tile_samples(part, (height, width)) for part in parts), strict=True))

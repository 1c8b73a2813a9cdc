"""A quantization recipe for snapshot video, from the float network to a folder with everything in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qsci_plugins.architectures.network import Network
from qsci_plugins.evaluation.bit_meter import BitMeter
from qsci_plugins.evaluation.complexity import count_macs, ops
from qsci_plugins.evaluation.published_cost import product_bits
from qsci_plugins.pipeline.output import CHECKPOINT, check_output, is_main, shared_work_folder, write_metrics
from qsci_plugins.pipeline.run import MODEL, Journal, calibrated, run_metrics
from qsci_plugins.pipeline.video_forms import (
    VideoForm,
    float_video_form,
    measure_video,
    openvino_video_form,
    quantized_video_form,
)
from qsci_plugins.pipeline.video_prepare import VideoPrepared, prepare_video, resolved_video
from qsci_plugins.pipeline.video_training import limits, train_snapshots
from qsci_plugins.progress import Progress
from qsci_plugins.recipes.reading import recipe_text
from qsci_plugins.recipes.schema import VideoRecipe
from qsci_plugins.schemes.backend import load_backend
from qsci_plugins.schemes.scheme import QuantizedNetwork
from qsci_plugins.schemes.shortcuts import widen_shortcuts
from qsci_plugins.training.parameters import relative_groups

__all__ = ["VideoRunResult", "run_video_recipe"]

#: height and width that operations are counted for, as in the papers
_COUNTED = (256, 256)


@dataclass(frozen=True)
class VideoRunResult:
    """What a run made, for a report to draw from; `metrics` is the content of metrics.json."""

    prepared: VideoPrepared
    quantized: QuantizedNetwork
    forms: Mapping[str, VideoForm]
    metrics: Mapping[str, Any]


def run_video_recipe(
    recipe: VideoRecipe,
    output: str | Path,
    *,
    force: bool = False,
    progress: Progress | None = None,
    report: Callable[[VideoRunResult, Path], None] | None = None,
) -> Path:
    """Adds shortcuts, quantizes, trains, exports and measures; returns the output folder, complete or not there.

    It holds metrics.json, recipe.yaml with absolute paths and every default, checkpoint.pt (the quantized network in
    torch) and, unless the recipe exports nothing, model/. `report` adds to the folder before it moves to its place.
    Ctrl-C while calibrating or training keeps what is done; the same call goes on from there. Started by `accelerate
    launch`, all processes train and the first one does the rest. Raises UserError, before the long work begins, for
    everything that does not fit.
    """
    progress = (progress or Progress()) if is_main() else Progress()
    output = Path(output)
    if is_main():
        check_output(output, force)
    recipe = resolved_video(recipe)
    prepared = prepare_video(recipe, progress)
    cpu = recipe.train is not None and recipe.train.cpu
    with shared_work_folder(output, recipe_text(recipe), force, cpu=cpu) as work:
        journal = Journal(work, is_main())
        quantized = calibrated(prepared, work, journal, progress, keep=is_main())
        _train(prepared, quantized, work, journal, progress)
        if not is_main():
            return output
        if recipe.export.openvino.mode != "none":
            with progress.stage("export", 1) as advance, journal.timed("export"):
                _export(prepared, quantized, work / MODEL)
                advance(1)
        result = _measured(prepared, quantized, work, journal, progress)
        write_metrics(work, result.metrics)
        if report is not None:
            report(result, work)
    return output


def _train(
    prepared: VideoPrepared, quantized: QuantizedNetwork, work: Path, journal: Journal, progress: Progress
) -> None:
    recipe = prepared.recipe
    if (work / CHECKPOINT).is_file():
        progress.note("training: done before the interruption")
        return
    if recipe.train is not None:
        widen_shortcuts(quantized, 1 / recipe.shortcut_start)
        groups = relative_groups(quantized, recipe.train.quantizer_rate)
        with journal.timed("training"):
            result = train_snapshots(
                quantized.model,
                prepared.network,
                prepared.clips,
                recipe.train,
                recipe.seed,
                work,
                "training",
                progress,
                groups,
            )
        quantized.model.load_state_dict(result.weights)
    quantized.model.eval()
    if is_main():
        load_backend(recipe.backend).save(quantized, work / CHECKPOINT)


def _export(prepared: VideoPrepared, quantized: QuantizedNetwork, folder: Path) -> None:
    from qsci_plugins.openvino.export import export_reconstructor

    settings, network = prepared.recipe.export.openvino, prepared.network
    assert settings.mode != "none"
    height, width = settings.tile
    export_reconstructor(
        quantized,
        network.module,
        folder,
        tile=(height, width),
        frames=prepared.frames,
        channels=network.channels,
        mode=settings.mode,
        overlap=prepared.overlap,
        about={"architecture": network.architecture, "backend": quantized.backend},
    )


def _measured(
    prepared: VideoPrepared, quantized: QuantizedNetwork, work: Path, journal: Journal, progress: Progress
) -> VideoRunResult:
    recipe, network = prepared.recipe, prepared.network
    meter = BitMeter(quantized, network)
    forms = {
        "float": float_video_form(prepared.float_network),
        "torch": quantized_video_form(quantized, network, meter),
    }
    if recipe.export.openvino.mode != "none":
        forms["openvino"] = openvino_video_form(work / MODEL)
    sets = measure_video(forms, prepared.scenes, progress, limits(recipe.evaluate))
    if not sets:  # the bits of the calibration clips are better than none
        meter.watch(prepared.batches[0])
    metrics = run_metrics(
        recipe,
        network,
        meter,
        journal,
        sets=sets,
        operations=_operations(prepared, network, meter),
        about_network={"shortcuts": recipe.shortcuts},
    )
    return VideoRunResult(prepared, quantized, forms, metrics)


def _operations(prepared: VideoPrepared, network: Network, meter: BitMeter) -> dict[str, Any]:
    """Every named count of operations for one measurement of 256x256, float without and quantized with shortcuts."""
    height, width = _COUNTED
    shapes = ((1, height, width), (1, prepared.frames, height, width), (1, height, width))
    macs = count_macs(network.module, *shapes)
    bits = {name: layer for name, layer in meter.bits().items() if name in macs}
    return {
        "input": [prepared.frames, height, width],
        "float": ops(count_macs(prepared.float_network.module, *shapes), {}),
        "quantized": ops(macs, product_bits(macs, bits)),
    }

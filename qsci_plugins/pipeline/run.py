"""A quantization recipe, for images or video, from the float network to a folder with everything in it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from qsci_plugins.files import write_text
from qsci_plugins.pipeline.measure import is_untried, measure_forms
from qsci_plugins.pipeline.metrics import Journal, quantization_metrics, write_metrics
from qsci_plugins.pipeline.networks import device_of, full_precision, move_networks
from qsci_plugins.pipeline.output import CHECKPOINT, check_output, is_main, shared_work_folder
from qsci_plugins.pipeline.prepare import fingerprints
from qsci_plugins.pipeline.task import Prepared, Task, task_of
from qsci_plugins.progress import Progress, quiet
from qsci_plugins.recipes.reading import check_paths, recipe_text
from qsci_plugins.recipes.schema import Recipe, VideoRecipe
from qsci_plugins.schemes.backend import load_backend
from qsci_plugins.schemes.placement import called_layers, place
from qsci_plugins.schemes.scheme import QuantizedNetwork, inputs_of, module_device

if TYPE_CHECKING:
    from qsci_plugins.evaluation.bit_meter import BitMeter

__all__ = ["MODEL", "RunResult", "float_layers", "prepared_on", "run_recipe"]

#: the folder to deploy
MODEL = "model"

#: images that the cost of layers is measured on
_COST_IMAGES = 2

#: seconds after which no further layer's cost is measured
_COST_SECONDS = 60

#: a layer that makes more of the error is named as costly
_COSTLY = 0.1


@dataclass(frozen=True)
class RunResult:
    """What a run leaves, for a report to draw from; `metrics` is the content of metrics.json."""

    task: Task
    prepared: Prepared
    quantized: QuantizedNetwork
    forms: Mapping[str, Any]
    metrics: Mapping[str, Any]


def run_recipe(
    recipe: Recipe | VideoRecipe,
    output: str | Path,
    *,
    data: str | Path | None = None,
    force: bool = False,
    progress: Progress | None = None,
    report: Callable[[RunResult, Path], None] | None = None,
    latency: bool = True,
) -> Path:
    """Quantizes, trains, exports and measures; returns the output folder, which is complete or not there.

    It holds metrics.json, recipe.yaml with absolute paths and every default, checkpoint.pt (the quantized network in
    torch) and, unless the recipe exports nothing, model/. `report` adds to the folder before it moves to its place.
    Without `latency` the exported model is not timed.
    `data` is a folder of benchmark sets (of video: of scenes), measured besides those that the recipe names. Ctrl-C while
    calibrating or training keeps what is done; the same call goes on from there, unless the weights or images are others
    since. Started by `accelerate launch`, all
    processes train and the first one does the rest.
    Torch calibrates, trains and measures on the recipe's `device`, which an interrupted run may go on without; the export
    and OpenVINO's measurements are the CPU's.
    Raises UserError, before the long work begins, for everything that does not fit.
    """
    progress = (progress or Progress()) if is_main() else Progress()
    output, device = Path(output), device_of(recipe)
    if is_main():
        check_output(output, force)
    task = task_of(recipe)
    recipe = task.resolve(recipe)
    check_paths(recipe)
    prepared = task.prepare(recipe, None if data is None else Path(data), progress)
    inputs = fingerprints(prepared)
    with shared_work_folder(output, recipe_text(recipe), force, inputs=inputs, cpu=device == "cpu") as work:
        journal = Journal(work, device)
        moved = prepared_on(device, prepared)
        with full_precision():
            quantized = _calibrated(moved, work, journal, progress)
            layer_errors = _layer_errors(moved, quantized, work, progress) if is_main() else {}
        _train(task, moved, quantized, work, journal, progress)
        if not is_main():
            return output
        move_networks("cpu", prepared, quantized)
        _export(task, prepared, quantized, work, journal, progress)
        timed = _timed(task, prepared, work, progress) if latency else None
        move_networks(device, prepared, quantized)
        with full_precision():
            result = _measured(task, prepared, quantized, work, journal, progress, timed, layer_errors)
            write_metrics(work, result.metrics)
            if report is not None:
                report(result, work)
        move_networks("cpu", prepared, quantized)
    return output


def prepared_on(device: str, prepared: Prepared) -> Prepared:
    """The same with its networks, which are moved, and calibration batches where torch is to compute."""
    move_networks(device, prepared)
    batches = [
        batch.to(device) if isinstance(batch, Tensor) else tuple(part.to(device) for part in batch)
        for batch in prepared.batches
    ]
    return replace(prepared, batches=batches, device=device)


def _calibrated(prepared: Prepared, work: Path, journal: Journal, progress: Progress) -> QuantizedNetwork:
    """The network with fitted quantizers, or as it was saved by the interrupted run."""
    backend = load_backend(prepared.recipe.backend)
    network, state = prepared.network, work / "calibrated.state"
    for file in (work / CHECKPOINT, state):
        if file.is_file():
            progress.note("calibration: done before the interruption")
            return backend.load(network.module, file)
    with progress.stage("calibration", 1) as advance, journal.timed("calibration"):
        with quiet():
            quantized = backend.quantize(
                network.module, prepared.scheme, prepared.placement, prepared.batches, network.value_range
            )
        advance(1)
    if left := float_layers(prepared, quantized):
        some = ", ".join([*left][:3]) + (f" and {len(left) - 3} more" if len(left) > 3 else "")
        progress.note(f"left in float, the report says why: {some}")
    if is_main():
        backend.save(quantized, state)
    return quantized


def _train(
    task: Task, prepared: Prepared, quantized: QuantizedNetwork, work: Path, journal: Journal, progress: Progress
) -> None:
    """The recipe's training, if any, whose result is saved as the run's checkpoint."""
    if (work / CHECKPOINT).is_file():
        progress.note("training: done before the interruption")
        return
    task.train(prepared, quantized, work, journal, progress)
    if is_main():
        load_backend(prepared.recipe.backend).save(quantized, work / CHECKPOINT)


def _export(
    task: Task, prepared: Prepared, quantized: QuantizedNetwork, work: Path, journal: Journal, progress: Progress
) -> None:
    settings, network = prepared.recipe.export.openvino, prepared.network
    if settings.mode == "none":
        return
    from qsci_plugins.openvino.export import export

    about = {"architecture": network.architecture, "backend": quantized.backend}
    with progress.stage("export", 1) as advance, journal.timed("export", "cpu"):
        if not (is_untried(prepared) and _exported_isolated(prepared, work, about)):
            export(
                quantized,
                network.module,
                work / MODEL,
                task.signature(prepared),
                mode=settings.mode,
                overlap=prepared.overlap,
                about=about,
            )
        advance(1)


def _exported_isolated(prepared: Prepared, work: Path, about: Mapping[str, Any]) -> bool:
    from qsci_plugins.pipeline.isolated import export_isolated

    return export_isolated(prepared, work, work / MODEL, about)


def float_layers(prepared: Prepared, quantized: QuantizedNetwork) -> dict[str, str]:
    """Why a layer that the recipe places is float nevertheless, by its name; mostly there is none."""
    module = prepared.network.module
    left = [name for name in place(module, prepared.placement) if name not in quantized.layers]
    if not left:
        return {}
    example = [tensor[:1] for tensor in inputs_of(prepared.batches[0], module_device(module))]
    hidden = f"{quantized.backend} does not see where its weight is used"
    constant = "it reads the same for every image, and is computed once"
    reasons = {name: hidden if reads else constant for name, reads in called_layers(module, example).items()}
    return {name: reasons.get(name, "the network does not call it") for name in left}


def _operations(
    task: Task, prepared: Prepared, quantized: QuantizedNetwork, meter: BitMeter, progress: Progress
) -> dict[str, Any] | None:
    """The counts, without which a run is as good: some networks do not run on shapes alone."""
    try:
        return task.operations(task.macs(prepared), quantized, meter)
    except Exception as error:
        reason = (str(error).strip().splitlines() or [""])[0][:160]
        progress.note(f"operations: not counted ({type(error).__name__}: {reason})")
        return None


def _layer_errors(prepared: Prepared, quantized: QuantizedNetwork, work: Path, progress: Progress) -> dict[str, Any]:
    """What the rounding of each layer costs the output, on a few calibration inputs, as the first call of a run found it:
    ahead of its training, behind which weights and ranges make up for one another."""
    from qsci_plugins.evaluation.bit_meter import layer_errors

    found = work / "layer_errors.state"
    if found.is_file():
        return dict(json.loads(found.read_text(encoding="utf-8")))
    device = module_device(quantized.model)
    few = _COST_IMAGES if prepared.network.task == "sr" else 1
    batch = [tensor[:few].to(device) for tensor in inputs_of(prepared.batches[0])]
    count = len(quantized.layers)
    with progress.stage("what each layer costs", count) as advance:
        whole, errors = layer_errors(quantized, prepared.network.module, batch, _COST_SECONDS, advance)
    if len(errors) < count:
        progress.note(
            f"what each layer costs: {len(errors)} of {count} layers in {_COST_SECONDS} s, the rest is not measured"
        )
    # digits beyond these are noise
    layers = {name: float(f"{error:.6g}") for name, error in errors.items()}
    result = {"whole": float(f"{whole:.6g}"), "layers": layers}
    write_text(found, json.dumps(result))
    low = {name: error for name, error in errors.items() if quantized.layers[name].counted}
    costly = sorted((name for name in low if low[name] > _COSTLY * whole), key=lambda name: -low[name])[:3]
    if costly and prepared.scheme.base_bits < 8:
        shares = ", ".join(f"{100 * low[name] / whole:.0f} % with {name}" for name in costly)
        progress.note(f"of the error ahead of training come {shares}; place.eight_bit gives layers 8 bits")
    return result


def _timed(task: Task, prepared: Prepared, work: Path, progress: Progress) -> dict[str, Any] | None:
    """The latency of the exported model; None where nothing is exported."""
    if not (work / MODEL).is_dir():
        return None
    from qsci_plugins.pipeline.measure import measure_latency

    return measure_latency(task, prepared, work / MODEL, progress)


def _measured(
    task: Task,
    prepared: Prepared,
    quantized: QuantizedNetwork,
    work: Path,
    journal: Journal,
    progress: Progress,
    latency: dict[str, Any] | None,
    layer_errors: dict[str, Any],
) -> RunResult:
    model = work / MODEL if (work / MODEL).is_dir() else None
    meter = task.meter(prepared, quantized)
    forms = task.forms(prepared, meter, model)
    sets = measure_forms(task, forms, prepared.sets, progress)
    if not sets:  # the bits of the calibration inputs are better than none
        meter.watch(prepared.batches[0])
    metrics = quantization_metrics(
        prepared,
        work,
        journal,
        sets=sets,
        operations=_operations(task, prepared, quantized, meter, progress),
        latency=latency,
        bits=meter.bits(),
        float_layers=float_layers(prepared, quantized),
        layer_errors=layer_errors,
    )
    return RunResult(task, prepared, quantized, forms, metrics)

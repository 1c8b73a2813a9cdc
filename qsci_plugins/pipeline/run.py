"""A quantization recipe from the float network to a folder with everything in it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from qsci_plugins.architectures.network import Network
from qsci_plugins.evaluation.bit_meter import BitMeter, Form, float_form, measure, operations
from qsci_plugins.files import write_text
from qsci_plugins.machine import describe_machine
from qsci_plugins.pipeline.image_forms import bit_meter, export_network, measure_latency, openvino_form
from qsci_plugins.pipeline.image_prepare import Prepared, prepare, resolved
from qsci_plugins.pipeline.image_training import train_selectors, training_log
from qsci_plugins.pipeline.output import CHECKPOINT, JOURNAL, check_output, work_folder, write_metrics
from qsci_plugins.progress import Progress, quiet
from qsci_plugins.recipes.reading import recipe_text
from qsci_plugins.recipes.schema import Recipe, VideoRecipe
from qsci_plugins.schemes.backend import load_backend
from qsci_plugins.schemes.placement import Placement
from qsci_plugins.schemes.scheme import QuantizedNetwork, Scheme
from qsci_plugins.training.settings import CADyQTraining

__all__ = [
    "MODEL",
    "Journal",
    "Quantizable",
    "RunResult",
    "calibrated",
    "fine_tuned",
    "run_metrics",
    "run_recipe",
]


@dataclass(frozen=True)
class RunResult:
    """What a run made, for a report to draw from; `metrics` is the content of metrics.json."""

    prepared: Prepared
    quantized: QuantizedNetwork
    forms: Mapping[str, Form]
    metrics: Mapping[str, Any]


def run_recipe(
    recipe: Recipe,
    output: str | Path,
    *,
    data: str | Path | None = None,
    force: bool = False,
    progress: Progress | None = None,
    report: Callable[[RunResult, Path], None] | None = None,
    latency: bool = True,
) -> Path:
    """Quantizes, fine-tunes, exports and measures; returns the output folder, which is complete or not there.

    It holds metrics.json, recipe.yaml with absolute paths and every default, checkpoint.pt (the quantized network in
    torch) and, unless the recipe exports nothing, model/. `report` adds to the folder before it moves to its place.
    Without `latency` the exported model is not timed.
    `data` is a folder of benchmark sets, measured besides those that the recipe names. Ctrl-C while calibrating or
    fine-tuning keeps what is done; the same call goes on from there.
    Raises UserError, before the long work begins, for everything that does not fit.
    """
    progress = progress or Progress()
    output = Path(output)
    check_output(output, force)
    recipe = resolved(recipe)
    with progress.stage("preparing", 1):
        prepared = prepare(recipe, None if data is None else Path(data))
    with work_folder(output, recipe_text(recipe), force) as work:
        journal = Journal(work)
        quantized = calibrated(prepared, work, journal, progress)
        quantized = fine_tuned(prepared, quantized, work, journal, progress)
        if recipe.export.openvino.mode != "none":
            with journal.timed("export"):
                export_network(prepared, quantized, work / MODEL, progress)
        result = _measured(prepared, quantized, work, journal, progress, latency)
        write_metrics(work, result.metrics)
        if report is not None:
            report(result, work)
    return output


def _measured(
    prepared: Prepared, quantized: QuantizedNetwork, work: Path, journal: Journal, progress: Progress, timed: bool
) -> RunResult:
    recipe, network = prepared.recipe, prepared.network
    meter = bit_meter(recipe, quantized, network)
    forms = {"float": float_form(network), "torch": meter.form()}
    latency = None
    if recipe.export.openvino.mode != "none":
        forms["openvino"] = openvino_form(work / MODEL)
        latency = measure_latency(prepared, work / MODEL, progress) if timed else None
    sets = measure(forms, prepared.sets, progress)
    if not sets:  # the bits of the calibration patches are better than none
        meter.watch(prepared.batches[0])
    metrics = run_metrics(
        recipe,
        network,
        meter,
        journal,
        sets=sets,
        operations=operations(network, quantized, meter),
        about_network={"scale": network.scale},
        more={"latency": latency, **({"training": log} if (log := training_log(work)) else {})},
    )
    return RunResult(prepared, quantized, forms, metrics)


def run_metrics(
    recipe: Recipe | VideoRecipe,
    network: Network,
    meter: BitMeter,
    journal: Journal,
    *,
    sets: Mapping[str, Any],
    operations: Mapping[str, Any],
    about_network: Mapping[str, Any],
    more: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The content of metrics.json; `meter` has seen what the bits are to be told of.

    `about_network` says what one kind of network alone has (scale, shortcuts), `more` what one kind of run alone measures.
    """
    return {
        "version": 1,
        "network": {
            "architecture": network.architecture,
            "weights": recipe.model.weights,
            "settings": network.settings,
            **about_network,
        },
        "backend": recipe.backend,
        "scheme": recipe.scheme,
        "sets": sets,
        "operations": operations,
        "seconds": {step: round(seconds, 2) for step, seconds in journal.seconds.items()},
        **(more or {}),
        "bits": {
            name: {"weight": weight, "activation": activation} for name, (weight, activation) in meter.bits().items()
        },
        "machine": describe_machine(),
    }


#: the folder to deploy
MODEL = "model"


class Journal:
    """Seconds of every step, kept in the work folder so that an interrupted run adds to them."""

    def __init__(self, work: Path, writes: bool = True) -> None:
        self._writes = writes
        self._file = work / JOURNAL
        self.seconds: dict[str, float] = json.loads(self._file.read_text()) if self._file.is_file() else {}

    @contextmanager
    def timed(self, step: str) -> Iterator[None]:
        """Adds the block's seconds, also where Ctrl-C ends it."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[step] = self.seconds.get(step, 0.0) + time.perf_counter() - started
            if self._writes:
                write_text(self._file, json.dumps(self.seconds))


class Quantizable(Protocol):
    """What calibration needs of a prepared recipe, for images or for video."""

    @property
    def recipe(self) -> Any: ...
    @property
    def network(self) -> Network: ...
    @property
    def scheme(self) -> Scheme: ...
    @property
    def placement(self) -> Placement: ...
    @property
    def batches(self) -> Any: ...


def calibrated(
    prepared: Quantizable, work: Path, journal: Journal, progress: Progress, *, keep: bool = True
) -> QuantizedNetwork:
    """The network with fitted quantizers, or as it was saved by the interrupted run; saved in turn, unless not to `keep`."""
    backend = load_backend(prepared.recipe.backend)
    network = prepared.network
    for file in (work / CHECKPOINT, work / "calibrated.state"):
        if file.is_file():
            progress.note("calibration: done before the interruption")
            return backend.load(network.module, file)
    with progress.stage("calibration", 1) as advance, journal.timed("calibration"):
        with quiet():
            quantized = backend.quantize(
                network.module, prepared.scheme, prepared.placement, prepared.batches, network.value_range
            )
        advance(1)
    if keep:
        backend.save(quantized, work / "calibrated.state")
    return quantized


def fine_tuned(
    prepared: Prepared, quantized: QuantizedNetwork, work: Path, journal: Journal, progress: Progress
) -> QuantizedNetwork:
    """The network after the recipe's fine-tuning (the same one where there is none), saved as the run's checkpoint.

    Ctrl-C keeps the state in the work folder and raises KeyboardInterrupt.
    """
    if (work / CHECKPOINT).is_file():
        progress.note("fine-tuning: done before the interruption")
        return quantized
    recipe = prepared.recipe
    if isinstance(recipe.train, CADyQTraining):
        with journal.timed("training"):
            train_selectors(recipe.train, prepared.network, quantized, work, progress)
    elif recipe.train is not None:
        from qsci_plugins.training.finetune import finetune

        with progress.stage("fine-tuning", recipe.train.steps) as advance, journal.timed("fine_tuning"):
            result = finetune(
                quantized,
                prepared.network.module,
                prepared.patches,
                recipe.train,
                work / "finetune.state",
                blocks=prepared.network.blocks,
                on_step=lambda step, scalars: advance(step, f"loss {scalars['loss']:.4f}"),
            )
        if not result.finished:
            raise KeyboardInterrupt(f"stopped after step {result.steps} of fine-tuning; the same command goes on")
    load_backend(recipe.backend).save(quantized, work / CHECKPOINT)
    return quantized

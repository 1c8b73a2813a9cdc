"""A quantization recipe from the float network to a folder with everything in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qsci_plugins.progress import Progress
from qsci_plugins.recipes.cadyq_training import training_log
from qsci_plugins.recipes.exported import export_network, measure_latency, openvino_form
from qsci_plugins.recipes.measure import Form, float_form, measure, operations
from qsci_plugins.recipes.metrics import run_metrics
from qsci_plugins.recipes.outputs import check_output, work_folder, write_metrics
from qsci_plugins.recipes.patchwise import bit_meter
from qsci_plugins.recipes.prepare import Prepared, prepare, resolved
from qsci_plugins.recipes.reading import recipe_text
from qsci_plugins.recipes.schema import Recipe
from qsci_plugins.recipes.steps import MODEL, Journal, calibrated, fine_tuned
from qsci_plugins.schemes.scheme import QuantizedNetwork

__all__ = ["RunResult", "run_recipe"]


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

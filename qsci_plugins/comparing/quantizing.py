"""A checkpoint, and nothing else, to an exported network: a recipe is made and run, at fewer bits while it may be."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from qsci_plugins.comparing.fingerprints import content_fingerprint, network_fingerprint
from qsci_plugins.comparing.held_back import FLOAT_OUTPUT, held_back_images, split_images, write_float_output
from qsci_plugins.comparing.settings import QuantizeSettings
from qsci_plugins.comparing.trials import Trial, Trials
from qsci_plugins.errors import UserError
from qsci_plugins.evaluation.bit_meter import float_form
from qsci_plugins.files import locked, write_text
from qsci_plugins.pipeline.measure import measure_latency
from qsci_plugins.pipeline.metrics import write_metrics
from qsci_plugins.pipeline.networks import device_of, full_precision, load_recipe_network, move_networks
from qsci_plugins.pipeline.output import RECIPE_FILE, check_output
from qsci_plugins.pipeline.prepare import fingerprints
from qsci_plugins.pipeline.run import MODEL, RunResult, prepared_on
from qsci_plugins.pipeline.task import Prepared, task_of
from qsci_plugins.progress import Progress
from qsci_plugins.recipes.making import network_recipe, pattern_name
from qsci_plugins.recipes.reading import on_device
from qsci_plugins.recipes.schema import BUILTIN_PHOTOS, Benchmark, Model, Recipe

__all__ = ["BITS", "QUANTIZE_FILE", "TRIALS", "run_quantize"]

QUANTIZE_FILE = "quantize.json"

#: the folder in the output of what was tried; gone when the output is complete
TRIALS = ".trials"

#: bit-widths by cost
BITS = (8, 6, 4)

#: dB, for auto bits
_LOSS = 0.1


#: why layers stay float
_SCALES = "only scales and shifts the colours"
_COSTLY = "its rounding costs more than the loss allows"


def run_quantize(
    settings: QuantizeSettings,
    progress: Progress | None = None,
    report: Callable[[RunResult, Path], None] | None = None,
    summarise: Callable[[Mapping[str, Any], Path], None] | None = None,
) -> dict[str, Any]:
    """Quantizes, measures and exports the network; the output is that of `pipeline.run.run_recipe` by the recipe in it.

    Besides it holds float_output/, the set of held-back inputs with the float network's own output as HR, and
    quantize.json, which is returned: the architecture, scale, backend and bits; `psnr` and `least_psnr` (dB to the float
    network's output); `loss` in dB, measured on the set `truth` (None: estimated); `sets` with images to compare with, dB
    of both networks; `latency` (ms of ours and fp32); `bytes` of the model and of the float weights; `macs_in_integers`, a
    share or None; the layers `raised` to 8 bits; `float`, by layer the reason; and a line for each of the `trials`.
    `report` adds to the folder of each trial, `summarise` to the one that was chosen, once its latency is known. Ctrl-C
    keeps what is done below .trials, and the same call goes on from there.
    Raises UserError for what does not fit, before the long work begins, and where nothing keeps `max_loss`.
    """
    progress, output = progress or Progress(), settings.output
    limit = _checked(settings)
    recipe, prepared = _prepared(settings, progress)
    trials_folder = output / TRIALS
    trials_folder.mkdir(parents=True, exist_ok=True)
    device = device_of(recipe)
    with locked(trials_folder, f"another process is writing {output}; wait for it, or name another output"):
        moved = prepared_on(device, prepared)
        files = None if settings.images is None else split_images(settings.images)[1]
        images = held_back_images(files, prepared.network)
        named = network_fingerprint(prepared.network)
        with progress.stage("the float network's own output", 1) as advance, full_precision():
            upscale = float_form(moved.float_network).upscale
            origin = write_float_output(images, upscale, named, prepared.network.scale, output)
            advance(1)
        own = Benchmark.model_validate({"set": FLOAT_OUTPUT, "folder": str(output.absolute())})
        recipe = recipe.model_copy(update={"evaluate": [own, *recipe.evaluate]})
        inputs = {**fingerprints(prepared), FLOAT_OUTPUT: origin, "truth": _content(prepared)}
        truth = None if settings.truth is None else prepared.sets[0].name
        trials = Trials(recipe, moved, inputs, trials_folder, progress, report, truth)
        trial = trials.cheapest(BITS if settings.bits == "auto" else (int(settings.bits),), limit)
        move_networks("cpu", prepared)
        _time(trial, prepared, progress)
        if summarise is not None:
            summarise(trial.metrics, trial.folder)
        result = _result(trial, trials, prepared)
        if settings.force:
            _clear(output)
        _publish(trial.folder, result, output)
    return result


def _checked(settings: QuantizeSettings) -> float | None:
    """The limit of the loss; UserError for settings that do not fit."""
    if settings.bits not in ("auto", *map(str, BITS)):
        raise UserError(f"--bits {settings.bits}: choose {', '.join(map(str, BITS))} or auto")
    if settings.max_loss is not None and not 0 < settings.max_loss < 100:
        raise UserError(f"--max-loss {settings.max_loss}: should be dB above 0, such as 0.1")
    for option, path in (("--images", settings.images), ("--truth", settings.truth)):
        if path is not None and not path.is_dir():
            raise UserError(f"{option} {path}: there is no such folder")
    if not settings.weights.is_file():
        raise UserError(f"there is no file {settings.weights}; give the weights of a network")
    unfinished = (settings.output / TRIALS).is_dir() and not (settings.output / RECIPE_FILE).is_file()
    if not unfinished:
        check_output(settings.output, settings.force)
    return _LOSS if settings.bits == "auto" and settings.max_loss is None else settings.max_loss


def _prepared(settings: QuantizeSettings, progress: Progress) -> tuple[Recipe, Prepared]:
    """A recipe at 8 bits, without the set of the float network's own output, and its parts."""
    model = Model(weights=str(settings.weights.absolute()), scale=settings.scale)
    network = load_recipe_network(model, settings.seed)
    if network.task != "sr":
        raise UserError(f"{settings.weights} holds {network.architecture}, which reconstructs video; use `qsci run`")
    calibrating = [BUILTIN_PHOTOS]
    if settings.images is not None:
        calibrating = [str(file.absolute()) for file in split_images(settings.images)[0]]
    sets: list[dict[str, str]] = []
    if settings.truth is not None:
        truth = settings.truth.absolute()
        sets.append({"set": truth.name, "folder": str(truth.parent)})
    elif settings.images is None and network.scale > 1:
        sets.append({"set": "builtin"})
    recipe = network_recipe(
        network,
        model.model_dump(),
        backend=settings.backend,
        images=calibrating,
        evaluate=sets,
        seed=settings.seed,
    )
    recipe = on_device(recipe, settings.device)
    device_of(recipe)
    prepared = task_of(recipe).prepare(recipe, None, progress)
    assert isinstance(prepared, Prepared)
    return recipe, prepared


def _content(prepared: Prepared) -> str:
    """Of the sets that the network is measured on."""
    task = task_of(prepared.recipe)
    pieces = (piece for pieces in prepared.sets for piece in pieces.pieces)
    return content_fingerprint(part for piece in pieces for part in task.content(piece))


def _time(trial: Trial, prepared: Prepared, progress: Progress) -> None:
    """Adds the latency to the metrics of the chosen trial, which trials do without."""
    if trial.metrics["latency"] is None:
        task = task_of(trial.recipe)
        timed = replace(prepared, recipe=trial.recipe)
        trial.metrics["latency"] = measure_latency(task, timed, trial.folder / MODEL, progress)
        write_metrics(trial.folder, trial.metrics)


def _result(trial: Trial, trials: Trials, prepared: Prepared) -> dict[str, Any]:
    metrics, network = trial.metrics, prepared.network
    latency = {row["name"]: row["median_ms"] for row in metrics["latency"]["rows"]}
    counts = (metrics["operations"] or {}).get("quantized")
    reasons = {name: _SCALES for name in map(pattern_name, trial.recipe.place.float_)}
    reasons.update(dict.fromkeys(trial.left, _COSTLY))
    return {
        "architecture": network.architecture,
        "scale": network.scale,
        "backend": trial.recipe.backend,
        "bits": trial.bits,
        "psnr": trial.psnr,
        "least_psnr": trial.least_psnr,
        "loss": trial.loss,
        "truth": trial.truth,
        "sets": {name: trial.quality(name) for name in metrics["sets"] if name != FLOAT_OUTPUT},
        "latency": {
            "ours": latency["ours"],
            "fp32": latency.get("fp32"),
            "tile": metrics["latency"]["tile"],
            "threads": metrics["latency"]["threads"],
        },
        "bytes": {
            "model": sum(file.stat().st_size for file in (trial.folder / MODEL).iterdir()),
            "float32": 4 * sum(tensor.numel() for tensor in network.module.parameters()),
        },
        "macs_in_integers": counts["quantized_macs"] / counts["macs"] if counts and counts["macs"] else None,
        "layers": len(metrics["bits"]),
        "raised": list(trial.raised),
        "float": {**reasons, **metrics["float_layers"]},
        "trials": [each.described() for each in trials.done],
    }


def _clear(output: Path) -> None:
    """Removes an earlier output, which is there until the new one is finished; its recipe first, so that no half of it counts."""
    for entry in sorted(output.iterdir(), key=lambda entry: entry.name != RECIPE_FILE):
        if entry.name in (TRIALS, FLOAT_OUTPUT):
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _publish(run: Path, result: Mapping[str, Any], output: Path) -> None:
    """Copies a finished run to the output, the recipe, which says that it is complete, at last; then removes the trials."""
    write_text(output / QUANTIZE_FILE, json.dumps(result, indent=2, allow_nan=False) + "\n")
    for entry in run.iterdir():
        if entry.is_dir():
            shutil.copytree(entry, output / entry.name, dirs_exist_ok=True)
        elif entry.name != RECIPE_FILE:
            shutil.copyfile(entry, output / entry.name)
    write_text(output / RECIPE_FILE, (run / RECIPE_FILE).read_text(encoding="utf-8"))
    shutil.rmtree(output / TRIALS, ignore_errors=True)

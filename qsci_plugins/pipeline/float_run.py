"""Float training from a recipe, for images or video: resumable, and free of NNCF and Brevitas."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save

from qsci_plugins.files import write_bytes
from qsci_plugins.pipeline.measure import measure_forms
from qsci_plugins.pipeline.metrics import Journal, training_metrics, write_metrics
from qsci_plugins.pipeline.networks import device_of, full_precision
from qsci_plugins.pipeline.output import WEIGHTS_FILE, check_output, is_main, shared_work_folder
from qsci_plugins.pipeline.prepare import fingerprints
from qsci_plugins.pipeline.task import task_of
from qsci_plugins.progress import Progress
from qsci_plugins.recipes.reading import recipe_text
from qsci_plugins.recipes.schema import FloatRecipe, FloatVideoRecipe

__all__ = ["train_recipe"]


def train_recipe(
    recipe: FloatRecipe | FloatVideoRecipe,
    output: str | Path,
    *,
    data: str | Path | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Trains a float network, measures it, and leaves weights.safetensors, metrics.json and recipe.yaml.

    Ctrl-C saves the state beside the output and raises KeyboardInterrupt; the same call goes on from there, to the same
    weights. `data` is a folder of benchmark sets (of video: of scenes) to measure on besides the recipe's own. Started by
    `accelerate launch`, all processes train and the first one does the rest. All runs on the recipe's `device`, which an
    interrupted training may go on without.
    Raises UserError, before any training, for a network, folders, sets or settings that do not fit.
    """
    progress = (progress or Progress()) if is_main() else Progress()
    output, device = Path(output), device_of(recipe)
    if is_main():
        check_output(output, force)
    task = task_of(recipe)
    trainable = replace(task.prepare_training(recipe, None if data is None else Path(data), progress), device=device)
    inputs = fingerprints(trainable)
    with shared_work_folder(output, recipe_text(recipe), force, inputs=inputs, cpu=device == "cpu") as work:
        journal = Journal(work, device)
        result = task.train_float(trainable, work, journal, progress)
        if not is_main():
            return output
        module = trainable.network.module
        module.load_state_dict(result.weights)
        module.to(device, memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]
        write_bytes(work / WEIGHTS_FILE, save(result.weights, {"format": "pt"}))
        with full_precision():
            sets = measure_forms(task, task.forms(trainable, None, None), trainable.sets, progress)
        write_metrics(work, training_metrics(trainable, work, journal, sets=sets, steps=result.steps))
    return output

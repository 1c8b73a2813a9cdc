"""A finished run measured again, on other sets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qsci_plugins.comparing.settings import EvaluateSettings
from qsci_plugins.errors import UserError
from qsci_plugins.openvino.builtin import BUILTIN, find_model_folder
from qsci_plugins.openvino.manifest import load_manifest
from qsci_plugins.pipeline.measure import measure_forms
from qsci_plugins.pipeline.output import RECIPE_FILE
from qsci_plugins.pipeline.task import task_named, task_of
from qsci_plugins.progress import Progress
from qsci_plugins.recipes.reading import on_device, read_recipe

__all__ = ["evaluate_run", "task_of_run"]


def evaluate_run(settings: EvaluateSettings, progress: Progress | None = None) -> dict[str, Any]:
    """PSNR, SSIM and FAB of every form of a run by set, form and piece (image or scene), as `sets` in its metrics.json.

    A run's forms are float, quantized in torch, and exported; those of a model folder the last alone. PSNR and SSIM of an
    image are those of its luma, of a scene those of its frames. Without `sets` these are those of the recipe (of a model
    folder: builtin), and what `data` adds to them: the standard sets in it or, for video, its scenes.
    Raises UserError for a folder that is neither, and a set that is not there or does not suit the network.
    """
    run = find_model_folder(settings.run) if str(settings.run).startswith(BUILTIN) else settings.run
    progress = progress or Progress()
    if not run.is_dir():
        raise UserError(f"there is no run {run}; give the output folder of `qsci run`, or a model folder")
    if (run / RECIPE_FILE).is_file():
        return _evaluate_forms(settings, progress)
    if settings.device not in (None, "auto", "cpu"):
        raise UserError(
            f"{run} is an exported model, which OpenVINO runs on the CPU; leave out --device {settings.device}"
        )
    manifest = load_manifest(run)
    task = task_named(manifest.task)
    names = settings.sets or (None if settings.data else ["builtin"])
    sets = task.sets([], manifest, settings.data, names)
    return measure_forms(task, {"openvino": task.exported(run)}, sets, progress)


def task_of_run(run: Path) -> str:
    """The name of the task of an output of `qsci run`, or of a model folder."""
    if (run / RECIPE_FILE).is_file():
        return task_of(read_recipe(run / RECIPE_FILE)).name
    return load_manifest(run).task


def _evaluate_forms(settings: EvaluateSettings, progress: Progress) -> dict[str, Any]:
    # these bring in torch and a backend, which a model folder alone does without
    from qsci_plugins.comparing.subjects import recipe_of_run
    from qsci_plugins.pipeline.networks import device_of, full_precision, move_networks
    from qsci_plugins.pipeline.output import CHECKPOINT
    from qsci_plugins.pipeline.run import MODEL
    from qsci_plugins.schemes.backend import load_backend

    run = settings.run
    recipe = on_device(recipe_of_run(run), settings.device)
    task, device = task_of(recipe), device_of(recipe)
    loaded = task.load(recipe)
    sets = task.sets(recipe.evaluate, loaded, settings.data, settings.sets)
    quantized = load_backend(recipe.backend).load(loaded.network.module, run / CHECKPOINT)
    model = run / MODEL if (run / MODEL).is_dir() else None
    move_networks(device, loaded, quantized)
    forms = task.forms(loaded, task.meter(loaded, quantized), model)
    with full_precision():
        return measure_forms(task, forms, sets, progress)

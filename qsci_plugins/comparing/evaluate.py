"""A finished run measured again, on other sets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qsci_plugins.comparing.subjects import refuse_video, refuse_video_recipe
from qsci_plugins.errors import UserError
from qsci_plugins.evaluation.bit_meter import Form, measure
from qsci_plugins.openvino.builtin import BUILTIN, find_model_folder
from qsci_plugins.openvino.manifest import load_manifest
from qsci_plugins.pipeline.image_forms import model_scale, openvino_form
from qsci_plugins.pipeline.image_prepare import find_sets
from qsci_plugins.pipeline.output import CHECKPOINT, RECIPE_FILE
from qsci_plugins.progress import Progress
from qsci_plugins.recipes.reading import read_recipe
from qsci_plugins.recipes.schema import Recipe

__all__ = ["evaluate_run"]


def evaluate_run(
    run: str | Path,
    data: str | Path | None = None,
    sets: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """PSNR-Y, SSIM and FAB of every form of a run on benchmark sets, by set and form, as in its metrics.json.

    `run` is the output of `qsci run`: float, quantized in torch, and exported; or a model folder, which has the last
    alone. Without `sets` these are those of the recipe (of a model folder: builtin), and the standard ones in `data`.
    Raises UserError for a folder that is neither, a set that is not there, a network of another scale, and video.
    """
    run = find_model_folder(run) if str(run).startswith(BUILTIN) else Path(run)
    progress = progress or Progress()
    folder = None if data is None else Path(data)
    if not run.is_dir():
        raise UserError(f"there is no run {run}; give the output folder of `qsci run`, or a model folder")
    if not (run / RECIPE_FILE).is_file():
        if load_manifest(run).task != "sr":
            refuse_video(run)
        images = find_sets([], folder, model_scale(run), sets or (None if folder else ["builtin"]))
        return measure({"openvino": openvino_form(run)}, images, progress)
    recipe = read_recipe(run / RECIPE_FILE)
    refuse_video_recipe(recipe, run)
    if not isinstance(recipe, Recipe):
        raise UserError(f"{run} is the output of `qsci train`; `qsci evaluate` takes that of `qsci run`")
    forms, scale = _forms(run, recipe)
    return measure(forms, find_sets(recipe.evaluate, folder, scale, sets), progress)


def _forms(run: Path, recipe: Recipe) -> tuple[dict[str, Form], int]:
    # these bring in torch and a backend, which a model folder alone does without
    from qsci_plugins.evaluation.bit_meter import float_form
    from qsci_plugins.pipeline.image_forms import bit_meter
    from qsci_plugins.pipeline.networks import load_recipe_network
    from qsci_plugins.pipeline.run import MODEL
    from qsci_plugins.schemes.backend import load_backend

    network = load_recipe_network(recipe.model, recipe.seed)
    if not (run / CHECKPOINT).is_file():
        raise UserError(f"{run} has no {CHECKPOINT}; it is not the whole output of a run")
    quantized = load_backend(recipe.backend).load(network.module, run / CHECKPOINT)
    forms = {"float": float_form(network), "torch": bit_meter(recipe, quantized, network).form()}
    if (run / MODEL).is_dir():
        forms["openvino"] = openvino_form(run / MODEL)
    return forms, network.scale

"""A network that reconstructs video, from whatever holds one: a run's output, a checkpoint, built-in weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from qsci_plugins.architectures.checkpoint import BUILTIN
from qsci_plugins.architectures.network import Network
from qsci_plugins.architectures.registry import load_network
from qsci_plugins.errors import UserError
from qsci_plugins.recipes.float_training import WEIGHTS_FILE, load_recipe_network
from qsci_plugins.recipes.outputs import CHECKPOINT, RECIPE_FILE
from qsci_plugins.recipes.reading import read_recipe
from qsci_plugins.recipes.schema import FloatRecipe
from qsci_plugins.recipes.video_schema import FloatVideoRecipe
from qsci_plugins.schemes.shortcuts import add_shortcuts

__all__ = ["load_video_network"]


def load_video_network(model: str | Path, architecture: str | None = None) -> Network:
    """The network in torch, in eval mode; of a quantized run the quantized one.

    `model` is the output folder of a run, a checkpoint file or builtin:NAME. `architecture` names that of a checkpoint where
    its tensors do not tell (python:package.module:Factory) or should be checked. Raises UserError for what holds no network,
    one of another configuration, and one that does not reconstruct video.
    """
    path = Path(model)
    if str(model).startswith(BUILTIN):
        network = load_network(architecture, str(model))
    elif path.is_dir():
        if architecture is not None:
            raise UserError(f"{path} is the output of a run, whose recipe names the architecture; leave it out")
        network = _of_run(path)
    elif path.exists():
        network = load_network(architecture, path)
    else:
        raise UserError(f"there is no model {path}; give a run's output, a model folder, a checkpoint or builtin:NAME")
    if network.task != "sci":
        raise UserError(f"{model} holds {network.architecture}, which enlarges images; give it to `qsci upscale`")
    return network


def _of_run(run: Path) -> Network:
    if not (run / RECIPE_FILE).is_file():
        raise UserError(f"{run} is neither the output of a run (it has no {RECIPE_FILE}) nor a model folder")
    recipe = read_recipe(run / RECIPE_FILE)
    if (run / WEIGHTS_FILE).is_file():
        # only the weights are the run's: those that it began with may be gone
        return load_network(recipe.model.architecture, run / WEIGHTS_FILE, **recipe.model.settings)
    if isinstance(recipe, FloatRecipe | FloatVideoRecipe) or not (run / CHECKPOINT).is_file():
        raise UserError(f"{run} has neither {WEIGHTS_FILE} nor {CHECKPOINT}; it is not the whole output of a run")
    from qsci_plugins.recipes.steps import backend

    network = load_recipe_network(recipe.model, recipe.seed)
    shortcuts = getattr(recipe, "shortcuts", [])
    stock = add_shortcuts(network.module, shortcuts) if shortcuts else network.module
    return replace(network, module=backend(recipe.backend).load(stock, run / CHECKPOINT).model)

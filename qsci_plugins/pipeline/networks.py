"""Networks from whatever holds one: a recipe's `model`, a run's output, a checkpoint, built-in weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from qsci_plugins.errors import UserError
from qsci_plugins.machine import choose_device
from qsci_plugins.openvino.builtin import BUILTIN
from qsci_plugins.pipeline.output import CHECKPOINT, RECIPE_FILE, WEIGHTS_FILE
from qsci_plugins.recipes.reading import expand, read_recipe
from qsci_plugins.recipes.schema import FloatRecipe, FloatVideoRecipe, Model

if TYPE_CHECKING:
    from qsci_plugins.architectures.network import Network
    from qsci_plugins.pipeline.task import Loaded
    from qsci_plugins.recipes.reading import AnyRecipe
    from qsci_plugins.schemes.scheme import QuantizedNetwork

__all__ = [
    "MaskedNetwork",
    "Runtime",
    "VideoNetwork",
    "device_of",
    "full_precision",
    "load_recipe_network",
    "load_recipe_video_network",
    "load_video_network",
    "move_networks",
    "open_network",
]


def load_recipe_network(model: Model, seed: int) -> Network:
    """The float network of a recipe's `model` section."""
    from qsci_plugins.architectures.registry import load_network  # an exported network needs no torch

    weights = model.weights
    if weights is not None and not weights.startswith("builtin:"):
        weights = str(expand(weights, "model.weights"))
    settings: dict[str, Any] = dict(model.settings)
    if model.value_range is not None:
        settings["value_range"] = model.value_range
    try:
        return load_network(model.architecture, weights, model.scale, seed, **settings)
    except UserError as error:
        message = str(error)
        raise UserError(message if message.startswith("model.") else f"model: {message}") from error


def load_recipe_video_network(model: Model, seed: int) -> Network:
    """The float network of a recipe's `model`; UserError for one that enlarges images."""
    network = load_recipe_network(model, seed)
    if network.task != "sci":
        raise UserError(f"model: {network.architecture} enlarges images; a recipe with `clips` is for snapshot video")
    return network


def device_of(recipe: AnyRecipe) -> str:
    """Where torch is to compute, "cpu" or "cuda:N", by a recipe's `device` and its older `train.cpu`.

    Raises UserError for a GPU that is not there, and where the two disagree.
    """
    if not getattr(recipe.train, "cpu", False):
        return choose_device(recipe.device)
    if recipe.device not in ("auto", "cpu"):
        raise UserError(f"device is {recipe.device}, but train.cpu says to train on the CPU; leave one of the two out")
    return "cpu"


@contextmanager
def full_precision() -> Iterator[None]:
    """Has convolutions on a GPU take float32 as a CPU does; by default their inputs are rounded to 10 bits there (TF32)."""
    import torch

    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def move_networks(device: str, loaded: Loaded, quantized: QuantizedNetwork | None = None) -> None:
    """Moves a recipe's networks, in place, to where torch is to compute."""
    for network in (loaded.float_network, loaded.network):
        network.module.to(device)
    if quantized is not None:
        quantized.model.to(device)


def load_video_network(model: str | Path, architecture: str | None = None) -> Network:
    """The network in torch, in eval mode; of a quantized run the quantized one.

    `model` is the output folder of a run, a checkpoint file or builtin:NAME. `architecture` names that of a checkpoint where
    its tensors do not tell (python:package.module:Factory) or should be checked. Raises UserError for what holds no network,
    one of another configuration, and one that does not reconstruct video.
    """
    from qsci_plugins.architectures.registry import load_network

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
    from qsci_plugins.architectures.registry import load_network

    if not (run / RECIPE_FILE).is_file():
        raise UserError(f"{run} is neither the output of a run (it has no {RECIPE_FILE}) nor a model folder")
    recipe = read_recipe(run / RECIPE_FILE)
    if (run / WEIGHTS_FILE).is_file():
        # only the weights are the run's: those that it began with may be gone
        return load_network(recipe.model.architecture, run / WEIGHTS_FILE, **recipe.model.settings)
    if isinstance(recipe, FloatRecipe | FloatVideoRecipe) or not (run / CHECKPOINT).is_file():
        raise UserError(f"{run} has neither {WEIGHTS_FILE} nor {CHECKPOINT}; it is not the whole output of a run")
    from qsci_plugins.schemes.backend import load_backend
    from qsci_plugins.schemes.shortcuts import add_shortcuts

    network = load_recipe_network(recipe.model, recipe.seed)
    shortcuts = getattr(recipe, "shortcuts", [])
    stock = add_shortcuts(network.module, shortcuts) if shortcuts else network.module
    return replace(network, module=load_backend(recipe.backend).load(stock, run / CHECKPOINT).model)


_MANIFEST = "manifest.json"
Runtime = Literal["auto", "openvino", "torch"]


class MaskedNetwork(Protocol):
    """A network and a mask: a measurement (H,W) of frames in 0..1 becomes frames (T,H,W) or (3,T,H,W)."""

    def reconstruct(self, measurement: np.ndarray) -> np.ndarray:
        """Not clamped."""
        ...


class VideoNetwork(Protocol):
    """A network before it is given a mask; `frames` is None where it takes any number, `color` says that it makes RGB."""

    frames: int | None
    color: bool

    def behind(self, mask: np.ndarray) -> MaskedNetwork:
        """The network for measurements through a mask (T,H,W) of 0..1."""
        ...


def open_network(
    model: str | Path,
    runtime: Runtime,
    architecture: str | None,
    threads: int | None,
    **exported: Any,
) -> VideoNetwork:
    """The exported network of a run or model folder, else (or for the runtime "torch") the one in torch.

    `exported` are settings of `Reconstructor` for the former.

    Raises UserError for what holds no network that reconstructs video.
    """
    places = (Path(model), Path(model) / "model")
    folder = next((place for place in places if (place / _MANIFEST).is_file()), None)
    if runtime == "openvino" and folder is None:
        raise UserError(
            f"{model} holds no exported network; export it with `qsci run`, or leave out --runtime openvino"
        )
    if folder is not None and runtime != "torch":
        return _Exported(folder, {"threads": threads, **exported})
    return _InTorch(model, architecture, threads)


class _Exported:
    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        from qsci_plugins.openvino.manifest import load_manifest

        manifest = load_manifest(folder)
        self.frames: int | None = manifest.frames
        self.color = manifest.channels == 3
        self._folder, self._settings = folder, settings
        if manifest.task != "sci":
            raise UserError(f"{folder} holds a network that enlarges images; give it to `qsci upscale`")

    def behind(self, mask: np.ndarray) -> MaskedNetwork:
        from qsci_plugins.openvino.reconstructor import Reconstructor

        return Reconstructor(self._folder, mask, **self._settings)


class _InTorch:
    frames: int | None = None

    def __init__(self, model: str | Path, architecture: str | None, threads: int | None) -> None:
        import torch

        if threads is not None:
            torch.set_num_threads(threads)
        self._network = load_video_network(model, architecture)
        self.color = self._network.channels == 3

    def behind(self, mask: np.ndarray) -> MaskedNetwork:
        from qsci_plugins.evaluation.torch_networks import TorchReconstructor

        return TorchReconstructor(self._network.module, mask, self._network.size_multiple)

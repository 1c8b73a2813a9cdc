"""A network of the user's own: `python:package.module:Factory`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from qsci_plugins.architectures.checkpoint import read_checkpoint
from qsci_plugins.architectures.network import Network, keep_inputs, repeated_blocks
from qsci_plugins.architectures.stock import load_tensors, tensor_differences
from qsci_plugins.errors import UserError

__all__ = ["PYTHON", "load_factory"]

PYTHON = "python:"

#: what describes a network, by type. The module's own attribute decides, else the recipe; other settings go to the
#: factory. An attribute of another type is something else (`blocks` is often a submodule, `scale` a parameter).
_DESCRIPTION: dict[str, tuple[type, ...]] = {
    "scale": (int,),
    "value_range": (float, int),
    "channels": (int,),
    "blocks": (list, tuple),
    "task": (str,),
    "size_multiple": (int,),
    "receptive_radius": (int,),
}


def load_factory(
    architecture: str, weights: str | Path | None, scale: int | None, seed: int, settings: dict[str, Any]
) -> Network:
    """Calls the factory (with the settings that do not describe the network), then loads the weights, if any.

    `scale`, `value_range` and the other attributes of `Network` are read from the module where it has them, else from
    `settings`; `value_range` is 1.0 where nobody says.
    Raises UserError for a factory that is not there or fails, for weights that do not fit, and for a scale that nobody
    says or that contradicts the module.
    """
    described = {name: settings[name] for name in _DESCRIPTION if name in settings}
    for name, value in described.items():
        if not _describes(name, value):
            key = name if name == "value_range" else f"settings.{name}"
            kinds = "a list of names" if name == "blocks" else " or ".join(kind.__name__ for kind in _DESCRIPTION[name])
            raise UserError(f"{architecture}: model.{key} cannot be {value!r}; it should be {kinds}")
    arguments = {name: value for name, value in settings.items() if name not in _DESCRIPTION}
    factory = _import(architecture)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            module = factory(**arguments)
    except Exception as error:  # whatever the user's code raises is a mistake in it, and is shown as such
        raise UserError(f"{architecture} failed: {type(error).__name__}: {error}") from error
    if not isinstance(module, nn.Module):
        raise UserError(f"{architecture} returned {type(module).__name__}; it must return a torch.nn.Module")
    if weights is not None:
        expected = module.state_dict()
        state = read_checkpoint(weights, lambda given: not tensor_differences(given, expected))
        load_tensors(module, state, str(weights), architecture)
    own = {name: getattr(module, name) for name in _DESCRIPTION if _describes(name, getattr(module, name, None))}
    said = {**described, **own}
    if scale is not None and said.setdefault("scale", scale) != scale:
        raise UserError(f"{architecture} upscales by {said['scale']}, but model.scale is {scale}; make them agree")
    if said.get("task") == "sci":
        said.setdefault("scale", 1)
    if "scale" not in said:
        raise UserError(f"{architecture} has no attribute `scale`; give model.scale")
    said.setdefault("value_range", 1.0)
    said.setdefault("blocks", repeated_blocks(module))
    return Network(module=keep_inputs(module.eval()), architecture=architecture, settings=arguments, **said)


def _describes(name: str, value: Any) -> bool:
    fits = isinstance(value, _DESCRIPTION[name]) and not isinstance(value, bool)
    return fits and (name != "blocks" or all(isinstance(block, str) for block in value))


def _import(architecture: str) -> Callable[..., Any]:
    module_name, _, attribute = architecture.removeprefix(PYTHON).partition(":")
    if not module_name or not attribute:
        raise UserError(f"{architecture} must read python:package.module:Factory")
    here = str(Path.cwd())
    added = here not in sys.path
    if added:  # a console script, unlike `python`, does not look for modules in the working folder
        sys.path.append(here)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise UserError(f"{architecture}: importing {module_name} failed: {type(error).__name__}: {error}") from error
    finally:
        if added:
            sys.path.remove(here)
    factory = getattr(module, attribute, None)
    if not callable(factory):
        raise UserError(f"{architecture}: {module_name} has no callable {attribute}")
    return factory

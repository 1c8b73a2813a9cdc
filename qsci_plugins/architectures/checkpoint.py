"""Reads a state dict from a file that somebody gave, without running any code that it may hold."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from qsci_plugins.errors import UserError
from qsci_plugins.safe_load import first_line, load_without_code

__all__ = ["builtin_weights", "read_checkpoint"]

BUILTIN = "builtin:"

#: under which names training programs keep the state dict; averaged weights come first
_WRAPPERS = ("params_ema", "average", "params", "state_dict", "model_state_dict", "model", "net")

#: what wrappers of modules put before every name
_PREFIXES = ("module.", "_orig_mod.", "netG.", "model.")


def builtin_weights() -> list[str]:
    """Names of the networks inside the package, for `builtin:NAME`."""
    folder = files("qsci_plugins").joinpath("weights")
    if not folder.is_dir():
        return []
    return sorted(
        file.name.removesuffix(".safetensors") for file in folder.iterdir() if file.name.endswith(".safetensors")
    )


def read_checkpoint(weights: str | Path) -> dict[str, Tensor]:
    """Tensors by name, on the CPU, floating ones as float32, wrappers and common prefixes removed.

    `weights` is a .safetensors file, anything that torch.load(weights_only=True) reads, or `builtin:NAME`.
    Raises UserError where the file is missing, is no checkpoint, holds code, or holds NaN or infinity.
    """
    if str(weights).startswith(BUILTIN):
        content = _read_builtin(str(weights).removeprefix(BUILTIN))
    else:
        content = _read_file(Path(weights).expanduser())
    state = _strip_prefixes(_unwrap(content, str(weights)))
    for name, tensor in state.items():
        if tensor.is_floating_point():
            state[name] = tensor = tensor.float()
            if not torch.isfinite(tensor).all():
                raise UserError(
                    f"{weights}: {name} holds NaN or infinite values; this checkpoint is damaged, use another"
                )
    return state


def _read_builtin(name: str) -> Any:
    file = files("qsci_plugins").joinpath("weights", f"{name}.safetensors")
    if not re.fullmatch(r"[\w-]+", name) or not file.is_file():
        available = ", ".join(BUILTIN + known for known in builtin_weights()) or "none"
        raise UserError(f"there are no built-in weights {BUILTIN}{name}; in this installation there are: {available}")
    with as_file(file) as path:
        return _read_file(path)


def _read_file(path: Path) -> Any:
    if path.is_dir():
        raise UserError(f"{path} is a folder; model.weights needs a checkpoint file (.pth, .pt, .safetensors)")
    if not path.is_file():
        raise UserError(f"there is no weights file {path}{_nearest_file(path)}")
    if path.suffix != ".safetensors":
        return load_without_code(path)
    try:
        return load_file(path)
    except PermissionError as error:
        raise UserError(f"{path} cannot be read: permission denied") from error
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise UserError(f"{path} is not a checkpoint, or a damaged one: {first_line(error)}") from error


def _nearest_file(path: Path) -> str:
    if not path.parent.is_dir():
        return f" (nor a folder {path.parent})"
    names = [file.name for file in path.parent.iterdir() if file.is_file()]
    near = difflib.get_close_matches(path.name, names, n=1)
    return f"; nearest: {path.with_name(near[0])}" if near else ""


def _unwrap(content: Any, weights: str) -> dict[str, Tensor]:
    while isinstance(content, Mapping):
        inner = next((content[key] for key in _WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            state = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
            if state:
                return state
            break
        content = inner
    raise UserError(
        f"{weights} holds no state dict: a mapping of names to tensors, alone or under {', '.join(_WRAPPERS)}"
    )


def _strip_prefixes(state: dict[str, Tensor]) -> dict[str, Tensor]:
    found = True
    while found:
        found = False
        for prefix in _PREFIXES:
            if all(name.startswith(prefix) for name in state):
                state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
                found = True
    return state

"""Reads a state dict from a file that somebody gave, without running any code that it may hold."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from qsci_plugins.errors import UserError
from qsci_plugins.files import check_regular
from qsci_plugins.machine import MAX_MEMORY, memory_limit
from qsci_plugins.safe_load import first_line, load_without_code

__all__ = ["Checkpoint", "builtin_weights", "open_checkpoint", "read_checkpoint"]

BUILTIN = "builtin:"

#: under which names training programs keep averages of the weights over their steps, which come before the last ones,
_AVERAGED = (
    "params_ema", "params-ema", "model_ema", "ema_model", "state_dict_ema", "net_g_ema", "generator_ema", "ema",
    "average",
)  # fmt: skip

#: and those
_LAST = ("params", "state_dict", "model_state_dict", "model", "net", "net_g", "generator")

#: what wrappers of modules put before every name
_PREFIXES = ("module.", "_orig_mod.", "netG.", "net_g.", "generator.", "model.", "net.")

#: what programs add to a state dict: thop's counts, and how many steps torch.optim.swa_utils averaged
_ADDED = re.compile(r"(^|\.)(total_ops|total_params)$|^n_averaged$")

#: numbers that are part of a network: Real-CUGAN's, whose outputs are others with it
_FLAGS = ("pro",)

#: wrappers of one another in a file
_DEEPEST = 8

StateDict = dict[str, Tensor]


def builtin_weights() -> list[str]:
    """Names of the networks inside the package, for `builtin:NAME`."""
    folder = files("qsci_plugins").joinpath("weights")
    if not folder.is_dir():
        return []
    return sorted(
        file.name.removesuffix(".safetensors") for file in folder.iterdir() if file.name.endswith(".safetensors")
    )


@dataclass(frozen=True)
class Checkpoint:
    """A state dict, and under which of several names in its file it stood; empty where there was but one."""

    tensors: StateDict
    origin: str = ""


def read_checkpoint(weights: str | Path, known: Callable[[StateDict], bool] = lambda state: False) -> StateDict:
    """The tensors of `open_checkpoint`."""
    return open_checkpoint(weights, known).tensors


def open_checkpoint(weights: str | Path, known: Callable[[StateDict], bool] = lambda state: False) -> Checkpoint:
    """Tensors by name, on the CPU, floating ones as float32, out of what training programs put around them.

    `weights` is a .safetensors file, anything that torch.load(weights_only=True) reads (either under the other's name),
    or `builtin:NAME`. Names are the file's own where a network is `known` by them, else without common prefixes; weight
    norm and spectral norm are folded into the weights unless it is known with them. Averaged weights come first.
    Raises UserError where the file is missing, is no checkpoint, holds code, or holds NaN or infinity.
    """
    if str(weights).startswith(BUILTIN):
        content = _read_builtin(str(weights).removeprefix(BUILTIN))
    else:
        content = _read_file(Path(weights).expanduser())
    held = list(_state_dicts(content))
    for state, _ in held:
        _check_plain(weights, state)
    if not held:
        raise UserError(
            f"{weights} holds no state dict: a mapping of names to tensors, alone or under"
            f" {', '.join((*_AVERAGED, *_LAST))}"
        )
    forms = (Checkpoint(form, origin) for state, origin in held for form, origin in _forms(state, origin))
    found = next((form for form in forms if known(form.tensors)), None)
    if found is None:
        state, origin = held[0]
        found = Checkpoint(_fold_norms(_strip_prefixes(state)), origin)
    tensors = dict(found.tensors)
    for name, tensor in tensors.items():
        if tensor.is_floating_point():
            tensors[name] = tensor = tensor.float()
            if not torch.isfinite(tensor).all():
                raise UserError(
                    f"{weights}: {name} holds NaN or infinite values; this checkpoint is damaged, use another"
                )
    return Checkpoint(tensors, found.origin)


def _read_builtin(name: str) -> Any:
    file = files("qsci_plugins").joinpath("weights", f"{name}.safetensors")
    if not re.fullmatch(r"[\w-]+", name) or not file.is_file():
        available = ", ".join(BUILTIN + known for known in builtin_weights()) or "none"
        raise UserError(f"there are no built-in weights {BUILTIN}{name}; in this installation there are: {available}")
    with as_file(file) as path:
        return _read_file(path)


def _read_file(path: Path) -> Any:
    check_regular(path)
    if path.is_dir():
        raise UserError(f"{path} is a folder; model.weights needs a checkpoint file (.pth, .pt, .safetensors)")
    if not path.is_file():
        raise UserError(f"there is no weights file {path}{_nearest_file(path)}")
    if not _is_safetensors(path):
        return load_without_code(path)
    try:
        return load_file(path)
    except PermissionError as error:
        raise UserError(f"{path} cannot be read: permission denied") from error
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise UserError(f"{path} is not a checkpoint, or a damaged one: {first_line(error)}") from error


def _is_safetensors(path: Path) -> bool:
    """By the first bytes, whatever the file's name; by its name where they say neither."""
    try:
        with path.open("rb") as file:
            head = file.read(9)
    except OSError:
        return path.suffix == ".safetensors"  # whose error names the reason
    if head.startswith((b"PK\x03\x04", b"\x80")):
        return False
    return head[8:] == b"{" or path.suffix == ".safetensors"


def _nearest_file(path: Path) -> str:
    if not path.parent.is_dir():
        return f" (nor a folder {path.parent})"
    names = [file.name for file in path.parent.iterdir() if file.is_file()]
    near = difflib.get_close_matches(path.name, names, n=1)
    return f"; nearest: {path.with_name(near[0])}" if near else ""


def _check_plain(weights: str | Path, state: StateDict) -> None:
    """Raises UserError for tensors that are no plain arrays of real numbers, and for more of them than fit into memory."""
    needed, limit = 0, memory_limit()
    for name, tensor in state.items():
        kind = (
            "is sparse"
            if tensor.layout != torch.strided
            else "has no values (it is on the device meta)"
            if tensor.is_meta
            else "is quantized"
            if tensor.is_quantized
            else "holds complex numbers"
            if tensor.is_complex()
            else None
        )
        if kind is not None:
            raise UserError(
                f"{weights}: {name} {kind}; save plain tensors: torch.save(model.state_dict(), 'weights.pth')"
            )
        needed += 4 * tensor.numel()  # one value may stand for terabytes
        if needed > limit:
            shape = "x".join(map(str, tensor.shape))
            raise UserError(
                f"{weights}: with {name} ({shape}) its tensors take more than the limit of {limit / 2**30:g} GiB; raise"
                f" {MAX_MEMORY} for a network as large"
            )
    if state and all(tensor.dtype == torch.bool for tensor in state.values()):
        raise UserError(f"{weights}: every tensor is of truth values; these are no weights")


def _state_dicts(content: Any, origin: str = "", depth: int = 0) -> Iterator[tuple[StateDict, str]]:
    """All that a file holds, averages first, with the names that lead there.

    Wrappers deeper than any program makes them, such as one that holds itself, are not looked into.
    """
    if not isinstance(content, Mapping) or depth == _DEEPEST:
        return
    inner = [key for key in (*_AVERAGED, *_LAST) if isinstance(content.get(key), Mapping)]
    if not inner and len(content) == 1:
        inner = [key for key, value in content.items() if isinstance(value, Mapping)]
    for key in inner:
        yield from _state_dicts(content[key], f"{origin}.{key}" if origin else str(key), depth + 1)
    state = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    state = {name: value for name, value in state.items() if not _ADDED.search(name)}
    if state:
        flags = {name: torch.tensor([content[name]]) for name in _FLAGS if isinstance(content.get(name), int)}
        averaged = "n_averaged" in content
        yield {**state, **flags}, (f"{origin} (averaged)".strip() if averaged else origin)


def _forms(state: StateDict, origin: str) -> Iterator[tuple[StateDict, str]]:
    """The same tensors under other names: an average among them first, then as they are, then without prefixes."""
    for key in _AVERAGED:
        inner = _below(state, f"{key}.")
        if inner:
            yield from _forms(inner, f"{origin}.{key}" if origin else key)
    for named in (state, *_stripped(state), *(_below(state, prefix) for prefix in _PREFIXES)):
        if named:
            yield named, origin
            yield _fold_norms(named), origin


def _below(state: StateDict, prefix: str) -> StateDict:
    """The tensors of one of several networks, such as what is trained beside its losses."""
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def _strip_prefixes(state: StateDict) -> StateDict:
    return [state, *_stripped(state)][-1]


def _stripped(state: StateDict) -> Iterator[StateDict]:
    """Without the prefix that all names share, and without the next one."""
    while prefix := next((p for p in _PREFIXES if all(name.startswith(p) for name in state)), None):
        state = _below(state, prefix)
        yield state


#: how weight norm and spectral norm keep a weight, as hooks of torch.nn.utils and as parametrizations
_NORMS = (
    (".weight_v", ".weight_g", None),
    (".parametrizations.weight.original1", ".parametrizations.weight.original0", None),
    (".weight_orig", ".weight_u", ".weight_v"),
    (".parametrizations.weight.original", ".parametrizations.weight.0._u", ".parametrizations.weight.0._v"),
)


def _fold_norms(state: StateDict) -> StateDict:
    """Every normalised weight as the weight that it makes in a forward."""
    state = dict(state)
    for raw, other, last in reversed(_NORMS):
        for layer in [name.removesuffix(raw) for name in state if name.endswith(raw)]:
            if layer + other not in state or (last is not None and layer + last not in state):
                continue
            weight, by = state.pop(layer + raw), state.pop(layer + other)
            if last is None:
                axes = [axis for axis, side in enumerate(by.shape) if side == 1]
                length = weight.square().sum(axes, keepdim=True).sqrt() if axes else weight.norm()
                state[f"{layer}.weight"] = weight * (by / length)
            else:
                right = state.pop(layer + last)
                axis = 0 if weight[0].numel() == right.numel() and len(weight) == by.numel() else 1
                rows = weight.movedim(axis, 0).flatten(1)
                state[f"{layer}.weight"] = weight / torch.dot(by, rows @ right)
    return state

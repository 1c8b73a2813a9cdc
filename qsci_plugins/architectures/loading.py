"""Puts tensors into a module, and says plainly what does not fit."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from torch import Tensor, nn

from qsci_plugins.errors import UserError

__all__ = ["load_tensors", "nearest", "tensor_differences"]


def load_tensors(module: nn.Module, state: Mapping[str, Tensor], weights: str, architecture: str) -> None:
    """Strict loading.

    Raises UserError that lists the first tensors that are missing, left over or of another shape.
    """
    expected = module.state_dict()
    # checkpoints older than PyTorch 0.4.1 do not count batches, and nothing here reads the counts
    state = {**{name: one for name, one in expected.items() if name.endswith("num_batches_tracked")}, **state}
    differences = tensor_differences(state, expected)
    if differences:
        raise UserError(f"{weights} does not fit {architecture}: {differences}")
    module.load_state_dict(dict(state))


def tensor_differences(given: Mapping[str, Tensor], expected: Mapping[str, Tensor], count: int = 3) -> str:
    """The first differing names and shapes in words; empty where there are none."""
    missing = [name for name in expected if name not in given]
    extra = [name for name in given if name not in expected]
    shapes = [
        f"{name} is {tuple(given[name].shape)} instead of {tuple(expected[name].shape)}"
        for name in expected
        if name in given and given[name].shape != expected[name].shape
    ]
    parts = [
        _list("missing", missing, count),
        _list("not expected", extra, count),
        _list("other shapes:", shapes, count),
    ]
    return "; ".join(part for part in parts if part)


def _list(title: str, names: list[str], count: int) -> str:
    if not names:
        return ""
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return f"{title} {', '.join(names[:count])}{more}"


def nearest(name: str, known: list[str]) -> str:
    """ "nearest: ..." of the known names, or all of them where none is near."""
    by_lowered = {one.lower(): one for one in known}
    near = difflib.get_close_matches(name.lower(), by_lowered, n=3, cutoff=0.5)
    return f"nearest: {', '.join(by_lowered[one] for one in near)}" if near else f"known: {', '.join(known)}"

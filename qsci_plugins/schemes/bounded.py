"""Learned steps and ranges that no optimizer moves through zero: each update moves them by a share of their size."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["BoundedMoves"]

#: of its size, that one update may move a value by; a rate that suits the size stays far below
_SHARE = 0.05


class BoundedMoves(nn.Module):
    """Adam moves a parameter by its rate whatever the gradient: at 1e-3 a step of 1e-4 would leave its size behind at once.

    The values stay plain parameters, with their exact gradients and names. What has moved since the last backward pass
    is bounded where it is used next, or saved: `before - 0.05 size .. before + 0.05 size`.
    """

    #: value by value at the last backward pass, with the size that its moves relate to
    _marks: dict[str, tuple[Tensor, Tensor]]

    def __init__(self) -> None:
        super().__init__()
        self._marks = {}

    def tracked(self, name: str, size: Tensor | None = None) -> Tensor:
        """The parameter `name`, its last move bounded; `size` > 0 broadcasts to it, default the value itself."""
        self._bound(name)
        parameter: Tensor = getattr(self, name)
        plain = torch.jit.is_tracing() or torch.compiler.is_compiling()
        if plain or not (torch.is_grad_enabled() and parameter.requires_grad):
            return parameter
        value = parameter.view_as(parameter)
        value.register_hook(lambda _: self._mark(name, size))
        return value

    @torch.no_grad()
    def _mark(self, name: str, size: Tensor | None) -> None:
        value: Tensor = getattr(self, name).detach().clone()
        if name not in self._marks:
            self._marks[name] = value, value.abs() if size is None else size.detach().abs().expand_as(value).clone()

    @torch.no_grad()
    def _bound(self, name: str) -> None:
        if not self._marks:
            return
        parameter: Tensor = getattr(self, name)
        before, size = self._marks.get(name, (parameter, parameter))
        if before is parameter or torch.equal(before, parameter):
            return  # no update yet
        del self._marks[name]
        share = _SHARE * size.to(parameter.device)
        before = before.to(parameter.device)
        bounded = torch.minimum(torch.maximum(parameter, before - share), before + share)
        if not torch.equal(bounded, parameter):
            parameter.copy_(bounded)

    def _save_to_state_dict(self, *args: Any) -> None:
        for name in list(self._marks):
            self._bound(name)
        super()._save_to_state_dict(*args)

    def _load_from_state_dict(self, *args: Any) -> None:
        self._marks.clear()  # what is loaded is no move
        super()._load_from_state_dict(*args)

"""A `cuda` device on machines without one: operations run on shapes alone, and raise where they mix devices."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["pretended_gpu"]

_ATEN = torch.ops.aten


class _Answers(TorchDispatchMode):
    """What depends on values that nobody has: a truth is True, a number 100, equal tensors differ, all values are unique."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is _ATEN._local_scalar_dense.default:
            return args[0].dtype is torch.bool or (100.0 if args[0].is_floating_point() else 1)
        if func is _ATEN._unique2.default:
            return args[0].flatten()[:2].clone(), *(args[0].new_empty(0, dtype=torch.int64) for _ in range(2))
        if func is _ATEN.index.Tensor and args[1][0] is not None and args[1][0].dtype is torch.bool:
            return args[0].clone()
        if func is _ATEN.equal.default:
            return bool((args[0] != args[1]).dim() < 0)  # raises where they are on different devices
        return func(*args, **(kwargs or {}))


def _apply(self: nn.Module, function: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
    """nn.Module's own swaps the insides of pretended tensors, which those with other references do not survive."""
    for module in self.modules():
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                if tensor is None:
                    continue
                with torch.no_grad():
                    moved = function(tensor)
                if moved.device != tensor.device:
                    tensors[name] = (
                        nn.Parameter(moved, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else moved
                    )
    return self


@contextmanager
def pretended_gpu() -> Iterator[None]:
    """Inside, `torch.device("cuda")` works as far as shapes and devices go: no backward pass, and no values."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.Module, "_apply", _apply)
        with FakeTensorMode(allow_non_fake_inputs=True), _Answers(), torch.no_grad():
            yield

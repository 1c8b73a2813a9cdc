"""Gradient checkpointing of a stock network's blocks: less memory, a second forward pass of each block."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint

__all__ = ["recompute_in_backward"]


@contextmanager
def recompute_in_backward(model: nn.Module, blocks: Sequence[str]) -> Iterator[None]:
    """Inside, the modules named `blocks` keep only their inputs for the backward pass; gradients are the same.

    Names, parameters and state dicts stay as they are. Not for a network with NNCF's hooks, which a repeated forward
    pass does not see.
    """
    modules = [model.get_submodule(name) for name in blocks]
    for module in modules:
        module.forward = partial(checkpoint, module.forward, use_reentrant=False)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for module in modules:
            del module.forward  # the class has its own

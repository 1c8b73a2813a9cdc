"""Less memory in training: a layer keeps no quantized tensor for its backward pass, but quantizes it again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from qsci_plugins.schemes.rounding import quantized_again

__all__ = ["quantize_again_in_backward"]


@contextmanager
def quantize_again_in_backward() -> Iterator[None]:
    """Around a forward pass in training; gradients are the same, bit for bit.

    The rounding keeps its input anyway. Without this, the convolution behind it keeps the quantized tensor as well,
    which nearly doubles what a network's forward pass leaves in memory.
    """
    with torch.autograd.graph.saved_tensors_hooks(_pack, _unpack):
        yield


def _pack(tensor: Tensor) -> Any:
    """A tensor that the rounding made becomes the rounding itself."""
    made_by = tensor.grad_fn
    return tensor if quantized_again(made_by) is None else made_by


def _unpack(packed: Any) -> Tensor:
    if isinstance(packed, Tensor):
        return packed
    again = quantized_again(packed)
    assert again is not None
    return again()

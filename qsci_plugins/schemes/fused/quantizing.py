"""Quantization on a GPU: the parameters, the tensor and all gradients in one kernel each way.

Every function takes what a quantizer's `qparams` would start from, gives what `fake_quantize` would, and None for a
tensor that its kernels do not cover. Tensors lie densely, samples (or output channels) one behind the other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from qsci_plugins.schemes.fused import functions, weight_functions, weight_kernels

if TYPE_CHECKING:
    from qsci_plugins.schemes.quantizer import BoundedMoves

__all__ = ["given", "learned", "mixture", "ranged", "symmetric", "weight"]

#: the longest row of a weight that one program takes
_LONGEST = 8192
_FLOATS = (torch.float32, torch.bfloat16, torch.float16)


def given(x: Tensor, scale: Tensor, offset: Tensor | None, low: Tensor, high: Tensor) -> Tensor | None:
    """`fake_quantize` of values that are the same for all of x, or for each of its samples."""
    values = [scale, low, high] if offset is None else [scale, low, high, offset]
    rows = 1
    for value in values:
        if value.numel() > 1:
            rows = value.shape[0] if value.dim() == x.dim() and value.numel() == value.shape[0] else 0
            break
    if rows == 0 or any(value.numel() not in (1, rows) or value.dtype != torch.float32 for value in values):
        return None
    laid = _laid_out(x, rows)
    return None if laid is None else functions.Given.apply(laid, scale, offset, low, high, rows)


def learned(
    owner: BoundedMoves, x: Tensor, step: Tensor, zero_point: Tensor, signed: Tensor, bits: int, elements: float
) -> Tensor | None:
    """LSQ+ in integer form, of one pair for all of x; gradients times 1 / sqrt(elements Qp)."""
    laid = _laid_out(x, 1)
    return None if laid is None else functions.Learned.apply(laid, step, zero_point, signed, owner, bits, elements)


def ranged(
    owner: BoundedMoves,
    x: Tensor,
    lower: Tensor,
    upper: Tensor,
    signed: Tensor,
    base: Tensor,
    measure: Tensor | None = None,
    factor: Tensor | None = None,
    limits: tuple[int, int] | None = None,
    *,
    asymmetric: bool = False,
) -> tuple[Tensor, Tensor] | None:
    """AdaBM's integer range at `base` bits, with `measure` at those of a mapped bit-width; also the bits, (N,) or (1,)."""
    rows = 1 if factor is None else factor.numel()
    laid = _laid_out(x, rows)
    if laid is None:
        return None
    y, bits = functions.Ranged.apply(laid, lower, upper, measure, factor, signed, base, owner, limits, rows, asymmetric)
    return y, bits


def symmetric(owner: BoundedMoves, x: Tensor, alpha: Tensor, bits: Tensor, signed: Tensor) -> Tensor | None:
    """PAMS of a single bit-width."""
    laid = _laid_out(x, 1)
    return None if laid is None or alpha.numel() != 1 else functions.Symmetric.apply(laid, alpha, bits, signed, owner)


def mixture(
    owner: BoundedMoves, x: Tensor, probabilities: Tensor, alpha: Tensor, bits: Tensor, signed: Tensor, choice: Tensor
) -> Tensor | None:
    """Each sample at the candidate that `choice` (N,) names, with the gradients of the mixture by `probabilities` (N,K)."""
    laid = _laid_out(x, choice.numel())
    return None if laid is None else functions.Mixture.apply(laid, probabilities, alpha, bits, signed, choice, owner)


def weight(
    owner: BoundedMoves,
    w: Tensor,
    step: Tensor | None,
    reach: Tensor,
    levels: tuple[float, float],
    *,
    limited: bool,
    factor: float = 1.0,
    magnitude: bool = False,
) -> Tensor | None:
    """A weight with a step for each output channel: `step`, its `magnitude`, or that of the largest value where None."""
    rows, size = w.shape[0], w.numel() // max(1, w.shape[0])
    inputs = w.shape[1] if w.dim() > 1 else 1
    places = size // max(1, inputs)
    dense = w.is_contiguous()
    last = not dense and _is_channels_last(w)
    if w.dim() < 2 or w.dtype != torch.float32 or not 0 < size <= _LONGEST or not (dense or last):
        return None
    if step is not None and step.numel() != rows:
        return None
    kinds = weight_kernels
    kind = kinds.LARGEST if step is None else kinds.MAGNITUDE if magnitude else kinds.LEARNED
    constants = {"LOW": levels[0], "KIND": kind.value, "BLOCK": _power(size)}
    pairs = {"HIGH": levels[1], "INPUTS": inputs, "PLACES": places, "LIMITED": limited}
    strides = (1, inputs) if last else (places, 1)
    return weight_functions.Weight.apply(w, step, reach, owner, strides, constants, pairs, factor)


def _is_channels_last(w: Tensor) -> bool:
    if w.dim() == 4:
        return w.is_contiguous(memory_format=torch.channels_last)
    return w.dim() == 5 and w.is_contiguous(memory_format=torch.channels_last_3d)


def _laid_out(x: Tensor, rows: int) -> Tensor | None:
    """x as the kernels need it, moved in memory only where it must be."""
    if x.numel() == 0 or x.dtype not in _FLOATS or rows < 1 or rows > 65535:
        return None
    if rows > 1 and x.shape[0] % rows:
        return None
    return x if x.is_contiguous() or _is_channels_last(x) else x.contiguous()


def _power(count: int) -> int:
    return 1 << max(4, (count - 1).bit_length())

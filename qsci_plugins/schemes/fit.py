"""The range with the least squared error, found by trying candidates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from qsci_plugins.schemes.quantizer import QParams
from qsci_plugins.schemes.rounding import dequantize, to_integers

__all__ = ["least_error", "shrinking", "with_samples"]

Candidate = TypeVar("Candidate")


def shrinking(count: int, parts: int = 100) -> list[float]:
    """Shares of a range: 1 - k / parts for k < count."""
    return [1 - k / parts for k in range(count)]


@torch.no_grad()
def least_error(
    x: Tensor, candidates: Sequence[Candidate], params: Callable[[Candidate], QParams], *, per_row: bool = False
) -> Tensor:
    """The index, a scalar, of the candidate whose `params` to_integers x with the least mean squared error, the first of equals.

    With `per_row`, x is (rows, values) and so are the answers: one index for each row, (rows, 1). An error that is not a
    number is never the least; where none is a number the answer is 0.
    """
    best_error = best = None
    for index, candidate in enumerate(candidates):
        p = params(candidate)
        error = (dequantize(to_integers(x, p.scale, p.offset, p.low, p.high), p.scale, p.offset) - x).square()
        error = error.mean(1, keepdim=True) if per_row else error.mean()
        if best_error is None or best is None:
            best_error = torch.full_like(error, torch.inf)
            best = torch.zeros_like(error, dtype=torch.int64)
        better = error < best_error
        best_error, best = torch.where(better, error, best_error), torch.where(better, index, best)
    if best is None:
        raise ValueError("no candidates")
    return best


def with_samples(summary: Tensor, x: Tensor, count: int = 4096) -> Tensor:
    """A batch's statistics (n,) with `count` values of x behind them, always from the same places."""
    picks = torch.randint(x.numel(), (count,), generator=torch.Generator().manual_seed(0)).to(x.device)
    return torch.cat([summary, x.flatten()[picks]])

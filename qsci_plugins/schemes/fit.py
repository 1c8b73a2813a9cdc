"""The range with the least squared error, found by trying candidates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from qsci_plugins.schemes.quantizer import QParams
from qsci_plugins.schemes.rounding import dequantize, to_integers

__all__ = ["least_error", "shrinking", "with_samples"]

Candidate = TypeVar("Candidate")


def shrinking(count: int, parts: int = 100) -> list[float]:
    """Shares of a range: 1 - k / parts for k < count."""
    return [1 - k / parts for k in range(count)]


#: of x for each of the candidates that one pass tries on a GPU, where many small passes cost more than a large one
_ELEMENTS = 1 << 24


@torch.no_grad()
def least_error(
    x: Tensor, candidates: Sequence[Candidate], params: Callable[[Candidate], QParams], *, per_row: bool = False
) -> Tensor:
    """The index, a scalar, of the candidate whose `params` to_integers x with the least mean squared error, the first of equals.

    With `per_row`, x is (rows, values) and so are the answers: one index for each row, (rows, 1). An error that is not a
    number is never the least; where none is a number the answer is 0.

    On a GPU many candidates that are numbers, or tuples of numbers, are tried at once: `params` then gets each as a
    tensor that broadcasts to a stack of x (flattened, but for `per_row`), and must use nothing but arithmetic on it.
    """
    if x.device.type != "cpu" and candidates and all(_is_numbers(candidate) for candidate in candidates):
        return _least_of_stacks(x, candidates, params, per_row)
    best_error = best = None
    for index, candidate in enumerate(candidates):
        error = _squared_error(x, params(candidate))
        error = error.mean(1, keepdim=True) if per_row else error.mean()
        if best_error is None or best is None:
            best_error = torch.full_like(error, torch.inf)
            best = torch.zeros_like(error, dtype=torch.int64)
        better = error < best_error
        best_error, best = torch.where(better, error, best_error), torch.where(better, index, best)
    if best is None:
        raise ValueError("no candidates")
    return best


def _squared_error(x: Tensor, p: QParams) -> Tensor:
    return (dequantize(to_integers(x, p.scale, p.offset, p.low, p.high), p.scale, p.offset) - x).square()


def _is_numbers(candidate: Any) -> bool:
    return all(isinstance(number, float) for number in (candidate if isinstance(candidate, tuple) else (candidate,)))


def _least_of_stacks(x: Tensor, candidates: Sequence[Any], params: Callable[[Any], QParams], per_row: bool) -> Tensor:
    stack = x.unsqueeze(0) if per_row else x.reshape(1, -1)
    # (candidates, numbers of each), on the device of x
    numbers = torch.tensor(candidates, dtype=x.dtype).reshape(len(candidates), -1).to(x.device)
    errors = []
    for part in numbers.split(max(1, _ELEMENTS // max(1, x.numel()))):
        columns = [column.reshape(-1, *[1] * (stack.dim() - 1)) for column in part.unbind(1)]
        candidate = tuple(columns) if isinstance(candidates[0], tuple) else columns[0]
        errors.append(_squared_error(stack, params(candidate)).mean(-1, keepdim=per_row))
    error = torch.cat(errors)
    return error.where(~error.isnan(), torch.inf).argmin(0)


def with_samples(summary: Tensor, x: Tensor, count: int = 4096) -> Tensor:
    """A batch's statistics (n,) with `count` values of x behind them, always from the same places."""
    picks = torch.randint(x.numel(), (count,), generator=torch.Generator().manual_seed(0), device="cpu").to(x.device)
    return torch.cat([summary, x.flatten()[picks]])

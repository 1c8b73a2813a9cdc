"""The kernels of weights as an autograd function."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from qsci_plugins.schemes.fused import weight_kernels
from qsci_plugins.schemes.fused.functions import Again, same_layout

if TYPE_CHECKING:
    from qsci_plugins.schemes.quantizer import BoundedMoves

__all__ = ["Weight"]


class Weight(Again):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        w: Tensor,
        step: Tensor | None,
        reach: Tensor,
        owner: BoundedMoves,
        strides: tuple[int, int],
        constants: dict[str, Any],
        pairs: dict[str, Any],
        factor: float,
    ) -> Tensor:
        rows = w.shape[0]
        y, saved = torch.empty_like(w), torch.empty(4, rows, device=w.device)
        bounds = reach if step is None else owner.bounds("step")
        weight_kernels.weight_forward[(rows,)](
            w, y, saved, reach if step is None else step, bounds, reach, rows, w.numel() // rows, *strides,
            **constants, **pairs,
        )  # fmt: skip
        ctx.save_for_backward(w, saved, step)
        ctx.owner, ctx.constants, ctx.factor = owner, constants, factor
        return y

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        w, saved, step = ctx.saved_tensors
        rows = w.shape[0]
        grad_w, grad_step = torch.empty_like(w), None if step is None else torch.empty_like(step)
        bounds = saved if step is None else ctx.owner.next_bounds("step", asked=ctx.needs_input_grad[1])
        weight_kernels.weight_backward[(rows,)](
            w, same_layout(grad, w), grad_w, saved, saved if step is None else step, bounds,
            saved if grad_step is None else grad_step, rows, w.numel() // rows, ctx.factor, **ctx.constants,
        )  # fmt: skip
        return grad_w, grad_step, *[None] * 6

"""The kernels as autograd functions; none of them can be differentiated twice, and says so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from qsci_plugins.schemes.fused import kernels, weight_kernels

if TYPE_CHECKING:
    from qsci_plugins.schemes.quantizer import BoundedMoves

__all__ = ["Again", "Given", "Learned", "Mixture", "Ranged", "Symmetric", "same_layout"]

_BLOCK = 2048


def _shape(x: Tensor, rows: int) -> tuple[int, int]:
    """The elements and the blocks of a row."""
    size = x.numel() // rows
    return size, -(-size // _BLOCK)


def _like(x: Tensor) -> Tensor:
    return torch.empty_like(x, dtype=torch.float32)


def same_layout(grad: Tensor, x: Tensor) -> Tensor:
    return grad if grad.stride() == x.stride() else torch.empty_like(x, dtype=grad.dtype).copy_(grad)


def _chunk(rows: int) -> dict[str, int]:
    power = 1 << (rows - 1).bit_length()
    return {"ROWS": power, "CHUNK": max(16, 1024 // power)}


def _backward(
    x: Tensor, grad: Tensor, saved: Tensor, *, offset: bool = False, sums: bool = True
) -> tuple[Tensor, Tensor, int]:
    """The gradient of x, the sums of all blocks, and how many blocks a row has."""
    rows = saved.shape[1]
    size, blocks = _shape(x, rows)
    grad = same_layout(grad, x)
    grad_x = torch.empty_like(x)
    partial = saved.new_empty(3 * rows * blocks) if sums else saved
    kernels.backward[(blocks, rows)](
        x, grad, grad_x, saved, partial, rows, size, blocks, OFFSET=offset, SUMS=sums, BLOCK=_BLOCK
    )
    return grad_x, partial, blocks


class Again(torch.autograd.Function):
    """Saves x and then `saved`, from which x is quantized once more where a backward pass asks for it."""

    offset = False

    @classmethod
    def again(cls, saved_tensors: Sequence[Tensor]) -> Tensor:
        """What forward gave."""
        x, saved = saved_tensors[:2]
        rows = saved.shape[1]
        size, blocks = _shape(x, rows)
        y = _like(x)
        scale, low, high, offset = saved
        kernels.given_forward[(blocks, rows)](
            x, y, torch.empty_like(saved), scale, offset, low, high, rows, size, 1, 1, 1, 1,
            OFFSET=cls.offset, BLOCK=_BLOCK,
        )  # fmt: skip
        return y


class Given(Again):
    offset = True

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, x: Tensor, scale: Tensor, offset: Tensor | None, low: Tensor, high: Tensor, rows: int
    ) -> Tensor:
        y, saved = _like(x), torch.empty(4, rows, device=x.device)
        size, blocks = _shape(x, rows)
        shift = torch.zeros_like(scale) if offset is None else offset
        values = (scale, shift, low, high)
        kernels.given_forward[(blocks, rows)](
            x, y, saved, *values, rows, size, *(int(v.numel() > 1) for v in values), OFFSET=True, BLOCK=_BLOCK
        )
        ctx.save_for_backward(x, saved)
        ctx.shapes = [None if v is None else v.shape for v in (scale, low, high, offset)]
        return y

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, saved = ctx.saved_tensors
        _, to_scale, to_offset, to_low, to_high, _ = ctx.needs_input_grad
        needed = (to_scale, to_low, to_high, to_offset)
        grad_x, partial, blocks = _backward(x, grad, saved, offset=True, sums=any(needed))
        if not any(needed):
            return grad_x, None, None, None, None, None
        rows = saved.shape[1]
        grads = torch.empty_like(saved)
        kernels.given_finish[(1,)](partial, saved, grads, rows, blocks, **_chunk(rows))
        found: list[Tensor | None] = []
        for asked, shape, values in zip(needed, ctx.shapes, grads, strict=True):
            if not asked:
                found.append(None)
            else:
                found.append((values if shape.numel() == rows else values.sum()).reshape(shape))
        return grad_x, found[0], found[3], found[1], found[2], None


class Learned(Again):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        x: Tensor,
        step: Tensor,
        zero_point: Tensor,
        signed: Tensor,
        owner: BoundedMoves,
        bits: int,
        elements: float,
    ) -> Tensor:
        y, saved = _like(x), torch.empty(4, 1, device=x.device)
        size, blocks = _shape(x, 1)
        kernels.learned_forward[(blocks, 1)](
            x, y, saved, step, zero_point, signed, owner.bounds("step"), size, BITS=bits, BLOCK=_BLOCK
        )
        ctx.save_for_backward(x, saved, step, zero_point, signed)
        ctx.owner, ctx.bits, ctx.elements = owner, bits, elements
        return y

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, saved, step, zero_point, signed = ctx.saved_tensors
        _, to_step, to_zero, *_ = ctx.needs_input_grad
        grad_x, partial, blocks = _backward(x, grad, saved, sums=to_step or to_zero)
        grads = None
        if to_step or to_zero:
            grads = torch.empty(2, device=x.device)
            kernels.learned_finish[(1,)](
                partial, saved, step, zero_point, signed, ctx.owner.next_bounds("step", asked=to_step), grads, blocks,
                ctx.elements, BITS=ctx.bits, CHUNK=1024,
            )  # fmt: skip
        return (
            grad_x,
            grads[:1] if grads is not None and to_step else None,
            grads[1:] if grads is not None and to_zero and ctx.bits != 8 else None,
            *[None] * 4,
        )


class Ranged(Again):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        x: Tensor,
        lower: Tensor,
        upper: Tensor,
        measure: Tensor | None,
        factor: Tensor | None,
        signed: Tensor,
        base: Tensor,
        owner: BoundedMoves,
        limits: tuple[int, int] | None,
        rows: int,
        asymmetric: bool,
    ) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        y, saved, bits = _like(x), torch.empty(4, rows, device=x.device), torch.empty(rows, device=x.device)
        size, blocks = _shape(x, rows)
        least, most = limits or (0, 0)
        nothing = base if factor is not None else torch.zeros_like(base)
        kernels.range_forward[(blocks, rows)](
            x, y, saved, bits, lower, upper, signed, base, base if measure is None else measure,
            nothing if factor is None else factor, owner.bounds("lower", "upper"), rows, size, float(least),
            float(most), int(rows > 1), MAPPED=measure is not None, LIMITED=limits is not None,
            ASYMMETRIC=asymmetric, BLOCK=_BLOCK,
        )  # fmt: skip
        ctx.save_for_backward(x, saved, bits, lower, upper, signed, measure)
        ctx.owner, ctx.asymmetric = owner, asymmetric
        ctx.factor_shape = None if factor is None else factor.shape
        if measure is None:
            ctx.mark_non_differentiable(bits)
        return y, bits

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor | None, grad_bits: Tensor | None) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, saved, bits, lower, upper, signed, measure = ctx.saved_tensors
        needed = ctx.needs_input_grad[1:5]
        rows = saved.shape[1]
        if grad is None:
            grad = torch.zeros_like(x)
        grad_x, partial, blocks = _backward(x, grad, saved, sums=any(needed))
        if not any(needed):
            return (grad_x, *[None] * 10)
        grads = torch.empty(3 + rows, device=x.device)
        kernels.range_finish[(1,)](
            partial, saved, bits, lower, upper, signed, lower if measure is None else measure,
            bits if grad_bits is None else grad_bits.contiguous(),
            ctx.owner.next_bounds("lower", "upper", asked=needed[0] or needed[1]), grads, rows, blocks,
            MAPPED=measure is not None, FROM_BITS=grad_bits is not None, ASYMMETRIC=ctx.asymmetric, **_chunk(rows),
        )  # fmt: skip
        parts = (grads[:1], grads[1:2], grads[2:3], grads[3:])
        found = [part if asked else None for part, asked in zip(parts, needed, strict=True)]
        if found[3] is not None:
            found[3] = found[3].reshape(ctx.factor_shape)
        return (grad_x, *found, *[None] * 6)


class Symmetric(Again):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, x: Tensor, alpha: Tensor, bits: Tensor, signed: Tensor, owner: BoundedMoves
    ) -> Tensor:
        y, saved = _like(x), torch.empty(4, 1, device=x.device)
        size, blocks = _shape(x, 1)
        kernels.symmetric_forward[(blocks, 1)](
            x, y, saved, alpha, bits, signed, bits, owner.bounds("alpha"), 1, size,
            CHOOSES=False, COUNT=1, BLOCK=_BLOCK,
        )  # fmt: skip
        ctx.save_for_backward(x, saved, alpha, bits, signed)
        ctx.owner = owner
        return y

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, saved, alpha, bits, signed = ctx.saved_tensors
        needed = ctx.needs_input_grad[1]
        grad_x, partial, blocks = _backward(x, grad, saved, sums=needed)
        grads = None
        if needed:
            grads = torch.empty_like(alpha)
            bounds = ctx.owner.next_bounds("alpha", asked=True)
            kernels.symmetric_finish[(1,)](partial, alpha, bits, signed, bounds, grads, blocks, CHUNK=1024)
        return grad_x, grads, None, None, None


class Mixture(Again):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        x: Tensor,
        probabilities: Tensor,
        alpha: Tensor,
        bits: Tensor,
        signed: Tensor,
        choice: Tensor,
        owner: BoundedMoves,
    ) -> Tensor:
        rows = choice.numel()
        y, saved = _like(x), torch.empty(4, rows, device=x.device)
        size, blocks = _shape(x, rows)
        kernels.symmetric_forward[(blocks, rows)](
            x, y, saved, alpha, bits, signed, choice, owner.bounds("alpha"), rows, size,
            CHOOSES=True, COUNT=alpha.numel(), BLOCK=_BLOCK,
        )  # fmt: skip
        ctx.save_for_backward(x, saved, probabilities.contiguous(), alpha, bits, signed)
        ctx.owner = owner
        return y

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, _, probabilities, alpha, bits, signed = ctx.saved_tensors
        rows, count = probabilities.shape
        size, blocks = _shape(x, rows)
        grad_x = torch.empty_like(x)
        partial = torch.empty(2 * count * rows * blocks, device=x.device)
        weight_kernels.mixture_backward[(blocks, rows)](
            x, same_layout(grad, x), grad_x, probabilities, alpha, bits, signed, partial, rows, size, blocks,
            COUNT=count, BLOCK=_BLOCK,
        )  # fmt: skip
        grad_p, grad_alpha = torch.empty_like(probabilities), torch.empty_like(alpha)
        weight_kernels.mixture_finish[(1,)](
            partial, probabilities, alpha, bits, signed,
            ctx.owner.next_bounds("alpha", asked=ctx.needs_input_grad[2]), grad_p, grad_alpha, rows, blocks,
            COUNT=count, **_chunk(rows),
        )  # fmt: skip
        return grad_x, grad_p, grad_alpha, None, None, None, None

"""Quantize and dequantize with straight-through gradients, in one fused pass over the tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from qsci_plugins.schemes.fused.choice import fused_functions, unless_triton_fails

__all__ = [
    "I8",
    "dequantize",
    "fake_quantize",
    "int8_bounds",
    "quantize_again_in_backward",
    "quantized_again",
    "round_ste",
    "to_integers",
]

#: elements of a tensor to work on at a time, so that what is computed in between stays in a core's cache
_ELEMENTS = 1 << 18

_Part = tuple[slice, ...]


def round_ste(x: Tensor) -> Tensor:
    """round(x) (half to even) whose gradient is 1."""
    return x + (x.round() - x).detach()


def to_integers(x: Tensor, scale: Tensor, offset: Tensor | None, low: Tensor, high: Tensor) -> Tensor:
    """The integers z = round(clamp((x - offset) / scale, low, high)) as floats; `offset` None stands for 0."""
    z = x / scale if offset is None else (x - offset) / scale
    return torch.minimum(torch.maximum(z, low), high).round()


I8 = (-128, 127)
_U8 = (0, 255)


def int8_bounds(low: float, high: float) -> tuple[int, int] | None:
    """The 256 levels that integers low..high are a part of, as one INT8 tensor holds them; None for more than fit.

    u8 or i8 where possible; else those from `low` on, which are u8 with a zero point. 0 is always one of them.
    """
    for bounds in (_U8, I8):
        if bounds[0] <= low and high <= bounds[1]:
            return bounds
    return (int(low), int(low) + 255) if high - 255 <= low <= 0 <= high else None


def dequantize(z: Tensor, scale: Tensor, offset: Tensor | None) -> Tensor:
    """z * scale + offset."""
    return z * scale if offset is None else z * scale + offset


def fake_quantize(x: Tensor, scale: Tensor, offset: Tensor | None, low: Tensor, high: Tensor) -> Tensor:
    """round(clamp((x - offset) / scale, low, high)) * scale + offset, the same shape as x.

    `scale` > 0, `offset`, `low` and `high` broadcast to x. The rounding passes gradients straight through; the clamp
    passes none to a clipped x, and hands those to the bound that clipped it. Every argument gets its exact gradient.
    Tracing and export see nothing but the plain operations.
    """
    if x.dtype in (torch.bfloat16, torch.float16):
        x = x.float()  # half the digits cannot tell 256 levels apart
    if torch.jit.is_tracing() or torch.compiler.is_compiling():
        return dequantize(to_integers(x, scale, offset, low, high), scale, offset)
    arguments = (x, scale, offset, low, high)
    functions = fused_functions(x) if x.is_cuda else None
    if functions is not None:
        fused = unless_triton_fails(functions.given, *arguments)
        if fused is not None:
            result: Tensor = fused
            return result
    if torch.is_grad_enabled() and any(a is not None and a.requires_grad for a in arguments):
        return _FakeQuantize.apply(*arguments)
    return _forward(*arguments)


def _forward(x: Tensor, scale: Tensor, offset: Tensor | None, low: Tensor, high: Tensor) -> Tensor:
    result = torch.empty_like(x)
    x, y, (scale, offset, low, high) = _lined_up(x, result, (scale, offset, low, high))
    for part in _parts(x):
        s, o, lo, hi = (_of(value, part, x.dim()) for value in (scale, offset, low, high))
        v = y[part]
        if o is None:
            torch.div(x[part], s, out=v)
        else:
            torch.sub(x[part], o, out=v).div_(s)
        torch.minimum(torch.maximum(v, lo, out=v), hi, out=v).round_().mul_(s)
        if o is not None:
            v.add_(o)
    return result


class _FakeQuantize(torch.autograd.Function):
    """Keeps x alone: the backward pass quantizes it again, which costs less than the memory of anything else would.

    With g the gradient of y, v = (x - offset) / scale and z the integers: inside, dy/dx = 1, dy/dscale = z - v,
    dy/doffset = 0; clipped at a bound b, dy/dx = 0, dy/db = scale, dy/dscale = z, dy/doffset = 1.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, offset: Tensor | None, low: Tensor, high: Tensor) -> Tensor:
        if not _is_dense(x):
            x = x.contiguous()  # such as queries, which lie between keys and values
        ctx.save_for_backward(x, scale, offset, low, high)
        return _forward(x, scale, offset, low, high)

    @staticmethod
    def again(saved_tensors: Sequence[Any]) -> Tensor:
        """What forward gave."""
        return _forward(*saved_tensors)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, *values = ctx.saved_tensors
        needed = ctx.needs_input_grad[1:]
        result = torch.empty_like(x)
        sums = [torch.zeros_like(v) if need else None for v, need in zip(values, needed, strict=True)]
        if grad.stride() != x.stride():
            grad = torch.empty_like(x).copy_(grad)
        totals = sums
        if _is_lined_up(x, values):
            grad = _line(grad)
            totals = [None if total is None else total.view(()) for total in sums]
        x, grad_x, values = _lined_up(x, result, values)
        parts = list(_parts(x))
        buffers = x.new_empty(4, x[parts[0]].numel())  # taken once: memory that is new costs more than the arithmetic
        for part in parts:
            scale, offset, low, high = (_of(value, part, x.dim()) for value in values)
            to_scale, to_offset, to_low, to_high = (None if s is None else _of(s, part, x.dim()) for s in totals)
            g, gx = grad[part], grad_x[part]
            v, z, below, above = (buffer[: g.numel()].view(g.shape) for buffer in buffers)
            if offset is None:
                torch.div(x[part], scale, out=v)
            else:
                torch.sub(x[part], offset, out=v).div_(scale)
            torch.minimum(torch.maximum(v, low, out=z), high, out=z).round_()
            torch.lt(v, low, out=below)
            torch.gt(v, high, out=above)
            if to_low is not None:
                _add_product(to_low, g, below, scale)
            if to_high is not None:
                _add_product(to_high, g, above, scale)
            clipped = below.add_(above)
            if to_offset is not None:
                _add_product(to_offset, g, clipped)
            if to_scale is not None:
                _add_product(to_scale, g, z.sub_(v.addcmul_(v, clipped, value=-1)))
            torch.addcmul(g, g, clipped, value=-1, out=gx)
        return result, *sums


def quantized_again(tensor: Tensor) -> Callable[[], Tensor] | None:
    """What computes once more a tensor that the rounding gave; None for any other."""
    grad_fn = tensor.grad_fn
    again = getattr(getattr(grad_fn, "_forward_cls", None), "again", None)
    if again is None or tensor.output_nr:
        return None
    return lambda: again(grad_fn.saved_tensors)  # type: ignore[union-attr]


def _add_product(total: Tensor, grad: Tensor, factor: Tensor, scale: Tensor | None = None) -> None:
    """Adds grad * factor * scale, summed to the shape of `total`."""
    if total.numel() == 1 and (scale is None or scale.numel() == 1):
        product = torch.dot(grad.flatten(), factor.flatten())
        total.add_(product if scale is None else product * scale.reshape(()))
    else:
        product = grad * factor
        total.add_((product if scale is None else product * scale).sum_to_size(total.shape))


def _lined_up(x: Tensor, y: Tensor, values: Sequence[Any]) -> tuple[Tensor, Tensor, list[Any]]:
    """x, y and the values for a pass through x: where the values are single numbers, x and y in the order of memory."""
    if not _is_lined_up(x, values):
        return x, y, list(values)
    return _line(x), _line(y), [None if value is None else value.reshape(()) for value in values]


def _is_lined_up(x: Tensor, values: Sequence[Any]) -> bool:
    return _is_dense(x) and all(value is None or value.numel() == 1 for value in values)


def _line(x: Tensor) -> Tensor:
    """A dense tensor as a vector, in whatever order its axes lie in memory; nothing is copied."""
    return x.as_strided((x.numel(),), (1,))


def _is_dense(x: Tensor) -> bool:
    """Whether the elements lie side by side in memory, in any order of the axes."""
    expected = 1
    for stride, size in sorted((s, n) for s, n in zip(x.stride(), x.shape, strict=True) if n != 1):
        if stride != expected:
            return False
        expected *= size
    return True


def _parts(x: Tensor) -> Iterator[_Part]:
    """Slices of the first axes that cover x, each of about `_ELEMENTS` elements."""
    if x.device.type != "cpu" or x.numel() <= _ELEMENTS:
        yield (slice(None),) * x.dim()
        return
    if x.dim() == 1:
        yield from ((slice(first, first + _ELEMENTS),) for first in range(0, len(x), _ELEMENTS))
        return
    sample = x.numel() // x.shape[0]
    if sample <= _ELEMENTS:
        rows = max(1, _ELEMENTS // sample)
        yield from ((slice(first, first + rows),) for first in range(0, x.shape[0], rows))
        return
    count = -(-sample // _ELEMENTS)
    rows = -(-x.shape[1] // count)
    for index in range(x.shape[0]):
        for first in range(0, x.shape[1], rows):
            yield (slice(index, index + 1), slice(first, first + rows))


def _of(value: Tensor | None, part: _Part, dims: int) -> Any:
    """What of a broadcast value belongs to a part of a tensor of `dims` dimensions."""
    if value is None or value.numel() == 1:
        return value
    missing = dims - value.dim()
    cuts = (cut if value.shape[axis - missing] > 1 else slice(None) for axis, cut in enumerate(part) if axis >= missing)
    return value[tuple(cuts)]


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
    again = quantized_again(tensor)
    return tensor if again is None else again


def _unpack(packed: Any) -> Tensor:
    if isinstance(packed, Tensor):
        return packed
    again: Tensor = packed()
    return again

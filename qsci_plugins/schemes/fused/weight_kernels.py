"""Triton kernels of weights, a program for each output channel, and of CADyQ's mixture of candidates."""

# mypy: disable-error-code="no-untyped-def"
# ruff: noqa: N803
from __future__ import annotations

import triton
import triton.language as tl

from qsci_plugins.schemes.fused.kernels import bounded, clamped, keep, mark, rounded, symmetric_levels, total

#: how a weight's step comes about: learned, at least 1e-12; the magnitude of a learned one; from the largest weight
LEARNED: tl.constexpr = tl.constexpr(0)
MAGNITUDE: tl.constexpr = tl.constexpr(1)
LARGEST: tl.constexpr = tl.constexpr(2)

#: of the step of a row of which a pair would saturate, as in `weight.py`
LIMITED_STEP: tl.constexpr = tl.constexpr(2 - 2.0**-19)


@triton.jit
def two_largest(v, i):
    """The sum of the two largest of v >= 0."""
    first = tl.max(v, axis=0)
    return first + tl.max(tl.where(i == tl.argmax(v, axis=0), 0.0, v), axis=0)


@triton.jit
def weight_forward(
    w, y, saved, step, bounds, reach, rows, size, s_channel, s_place,
    LOW: tl.constexpr, HIGH: tl.constexpr, KIND: tl.constexpr, INPUTS: tl.constexpr, PLACES: tl.constexpr,
    LIMITED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """A row of PairedWeight: INPUTS channels at PLACES each, of strides `s_channel` and `s_place`.

    With LIMITED, a row of which a pair would saturate gets a step (almost) twice as large and levels -64..64.
    """
    row = tl.program_id(0)
    i = tl.arange(0, BLOCK)
    paired: tl.constexpr = LIMITED and INPUTS % 2 == 0
    if paired:
        inside = i < size // 2
        at = row * size + 2 * (i // PLACES) * s_channel + (i % PLACES) * s_place
        b = tl.load(w + at + s_channel, mask=inside, other=0.0)
    else:
        inside = i < size
        at = row * size + i
        b = tl.zeros([BLOCK], tl.float32)
    a = tl.load(w + at, mask=inside, other=0.0)
    if KIND == LARGEST:
        scale = tl.math.div_rn(tl.max(tl.maximum(tl.abs(a), tl.abs(b)), axis=0) + 1e-8, HIGH)
    else:
        scale = bounded(step, bounds, row, rows, True)
        if KIND == MAGNITUDE:
            scale = tl.abs(scale)
        scale = tl.maximum(scale, 1e-12)
    low, high = scale * 0.0 + LOW, scale * 0.0 + HIGH
    if LIMITED and INPUTS > 1:
        za, zb = (
            rounded(clamped(tl.math.div_rn(a, scale), low, high)),
            rounded(clamped(tl.math.div_rn(b, scale), low, high)),
        )
        if paired:
            up = tl.max(tl.maximum(za, 0.0) + tl.maximum(zb, 0.0), axis=0)
            down = tl.max(tl.maximum(-za, 0.0) + tl.maximum(-zb, 0.0), axis=0)
        else:
            up, down = two_largest(tl.maximum(za, 0.0), i), two_largest(tl.maximum(-za, 0.0), i)
        limit = tl.maximum(up, down) * tl.load(reach) > 32767.0
        scale = tl.where(limit, LIMITED_STEP * scale, scale)
        low, high = tl.where(limit, -64.0, low), tl.where(limit, 64.0, high)
    tl.store(y + at, rounded(clamped(tl.math.div_rn(a, scale), low, high)) * scale, mask=inside)
    if paired:
        z = rounded(clamped(tl.math.div_rn(b, scale), low, high))
        tl.store(y + at + s_channel, z * scale, mask=inside)
    keep(saved, row, rows, scale, low, high)


@triton.jit
def weight_backward(
    w, grad, grad_w, saved, step, bounds, grad_step, rows, size, factor,
    LOW: tl.constexpr, KIND: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The gradient of a row, and of its step times `factor`."""
    row = tl.program_id(0)
    i = tl.arange(0, BLOCK)
    at = row * size + i
    scale, low, high = tl.load(saved + row), tl.load(saved + rows + row), tl.load(saved + 2 * rows + row)
    v = tl.math.div_rn(tl.load(w + at, mask=i < size, other=0.0), scale)
    g = tl.load(grad + at, mask=i < size, other=0.0).to(tl.float32)
    clips = (v < low) | (v > high)
    tl.store(grad_w + at, tl.where(clips, 0.0, g), mask=i < size)
    if KIND != LARGEST:
        z = rounded(clamped(v, low, high))
        to_step = tl.sum(g * tl.where(clips, z, z - v), axis=0) * factor
        to_step = tl.where(low > LOW, LIMITED_STEP * to_step, to_step)
        value = tl.load(step + row)
        size_of = value
        if KIND == MAGNITUDE:
            size_of = tl.abs(value)
            to_step = tl.where(value < 0.0, -to_step, to_step)
        tl.store(grad_step + row, tl.where(size_of >= 1e-12, to_step, 0.0))
        mark(bounds, row, rows, value, value)


@triton.jit
def mixture_backward(
    x, grad, grad_x, probabilities, alpha, bits, signed, partial, rows, size, blocks,
    COUNT: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """grad_x of the mixture, and in `partial` (2 COUNT, rows, blocks) the sums for probabilities and steps."""
    row = tl.program_id(1)
    block = tl.program_id(0)
    i = block * BLOCK + tl.arange(0, BLOCK)
    at = row.to(tl.int64) * size + i
    value = tl.load(x + at, mask=i < size, other=0.0).to(tl.float32)
    g = tl.load(grad + at, mask=i < size, other=0.0).to(tl.float32)
    negative = tl.load(signed)
    share = tl.zeros([BLOCK], tl.float32)
    for k in tl.static_range(COUNT):
        scale, high = symmetric_levels(tl.load(alpha + k), bits, signed, k)
        low = -high * negative
        v = tl.math.div_rn(value, scale)
        c = clamped(v, low, high)
        clips = v != c
        share += tl.where(clips, 0.0, tl.load(probabilities + row * COUNT + k))
        error = tl.sum(g * (rounded(c) - v), axis=0)
        slope = error + tl.sum(tl.where(clips, g * v, 0.0), axis=0)
        at_k = (k * rows + row) * blocks + block
        tl.store(partial + at_k, error)
        tl.store(partial + COUNT * rows * blocks + at_k, slope)
    tl.store(grad_x + at, share * g, mask=i < size)


@triton.jit
def mixture_finish(
    partial, probabilities, alpha, bits, signed, bounds, grad_p, grad_alpha, rows, blocks,
    COUNT: tl.constexpr, ROWS: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """Gradients of probabilities (rows, COUNT) and alpha (COUNT,)."""
    r = tl.arange(0, ROWS)
    inside = r < rows
    for k in tl.static_range(COUNT):
        value = tl.load(alpha + k)
        scale, level = symmetric_levels(value, bits, signed, k)
        error = total(partial, k, r, rows, blocks, ROWS, CHUNK)
        slope = total(partial, COUNT + k, r, rows, blocks, ROWS, CHUNK)
        tl.store(grad_p + r * COUNT + k, error * scale, mask=inside)
        p = tl.load(probabilities + r * COUNT + k, mask=inside, other=0.0)
        to_alpha = tl.sum(tl.where(inside, p * slope, 0.0), axis=0) / level
        tl.store(grad_alpha + k, tl.where(value >= 1e-8, to_alpha, 0.0))
        mark(bounds, k, COUNT, value, value)

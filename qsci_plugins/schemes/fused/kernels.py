"""Quantizers as Triton kernels: the values that quantize, the tensor and all gradients, each in one pass.

`functions` starts them, on a GPU alone. A tensor lies in `rows` of `size` elements; `saved` (4, rows) holds
scale, low, high and offset of each row. A backward kernel leaves sums for each block of a row in `partial`
(..., rows, blocks), always in the same order, and a `finish` kernel adds them up and leads them to the parameters.
`bounds` (2, ...) hold the least and the greatest value that a parameter may have (see `BoundedMoves`).
"""

# mypy: disable-error-code="no-untyped-def"
# ruff: noqa: N803
from __future__ import annotations

import triton
import triton.language as tl

#: BoundedMoves: of its size, that one update may move a value by
SHARE: tl.constexpr = tl.constexpr(0.05)


@triton.jit
def rounded(v):
    """Half to even, below 2^22."""
    return (v + 12582912.0) - 12582912.0


@triton.jit
def clamped(v, low, high):
    """NaN stays NaN."""
    return tl.where(v < low, low, tl.where(v > high, high, v))


@triton.jit
def bounded(parameter, bounds, index, count, first):
    """A parameter's value within its bounds, which the first program writes back."""
    value = clamped(tl.load(parameter + index), tl.load(bounds + index), tl.load(bounds + count + index))
    tl.store(parameter + index, value, mask=first)
    return value


@triton.jit
def mark(bounds, index, count, value, size):
    """The bounds of a parameter's next move."""
    share = SHARE * tl.abs(size)
    tl.store(bounds + index, value - share)
    tl.store(bounds + count + index, value + share)


@triton.jit
def keep(saved, row, rows, scale, low, high):
    tl.store(saved + row, scale)
    tl.store(saved + rows + row, low)
    tl.store(saved + 2 * rows + row, high)


@triton.jit
def quantize(x, y, row, size, scale, low, high, offset, OFFSET: tl.constexpr, BLOCK: tl.constexpr):
    """The block of a row that this program is for."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    at = row.to(tl.int64) * size + i
    v = tl.load(x + at, mask=i < size, other=0.0).to(tl.float32)
    if OFFSET:
        v = v - offset
    z = rounded(clamped(tl.math.div_rn(v, scale), low, high)) * scale
    if OFFSET:
        z = z + offset
    tl.store(y + at, z, mask=i < size)


@triton.jit
def given_forward(
    x, y, saved, scale, offset, low, high, rows, size, s_scale, s_offset, s_low, s_high,
    OFFSET: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Values that are given; a stride `s_...` of 0 stands for the same in every row."""
    row = tl.program_id(1)
    step, least, most = tl.load(scale + row * s_scale), tl.load(low + row * s_low), tl.load(high + row * s_high)
    shift = tl.load(offset + row * s_offset)
    if tl.program_id(0) == 0:
        keep(saved, row, rows, step, least, most)
        tl.store(saved + 3 * rows + row, shift)
    quantize(x, y, row, size, step, least, most, shift, OFFSET, BLOCK)


@triton.jit
def learned_levels(signed, BITS: tl.constexpr):
    """(Qn, Qp) of LSQ+."""
    low = -tl.load(signed) * (2 ** (BITS - 1))
    return low, low + (2**BITS - 1)


@triton.jit
def learned_forward(x, y, saved, step, zero_point, signed, bounds, size, BITS: tl.constexpr, BLOCK: tl.constexpr):
    """LearnedStepActivation in integer form."""
    first = tl.program_id(0) == 0
    scale = tl.maximum(bounded(step, bounds, 0, 1, first), 1e-8)
    low, high = learned_levels(signed, BITS)
    if BITS != 8:
        zero = clamped(rounded(clamped(tl.load(zero_point), -1e5, 1e5)), low, high)
        low, high = low - zero, high - zero
    if first:
        keep(saved, 0, 1, scale, low, high)
    quantize(x, y, tl.program_id(1), size, scale, low, high, 0.0, False, BLOCK)


@triton.jit
def range_forward(
    x, y, saved, bits_out, lower, upper, signed, base, measure, factor, bounds, rows, size, LEAST, MOST, s_factor,
    MAPPED: tl.constexpr, LIMITED: tl.constexpr, ASYMMETRIC: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """RangeActivation in integer form, at the bits of a static or a mapped bit-width."""
    row = tl.program_id(1)
    first = tl.program_id(0) == 0
    bottom = bounded(lower, bounds, 0, 2, first)
    top = bounded(upper, bounds + 1, 0, 2, first)
    bits = tl.load(base)
    if MAPPED:
        bits = bits + rounded(clamped(tl.load(measure), -1.0, 1.0)) + tl.load(factor + row * s_factor)
        if LIMITED:
            bits = clamped(bits, LEAST, MOST)
    count = tl.exp2(bits) - 1.0
    negative = tl.load(signed).to(tl.int1)
    bottom = tl.where(negative, clamped(bottom, -float("inf"), 0.0), 0.0)
    scale = tl.maximum(tl.math.div_rn(top - bottom, count), 1e-8)
    low = rounded(tl.math.div_rn(bottom, scale))
    if not ASYMMETRIC:
        eight = negative & (bits > 7.5)
        wide = tl.maximum(tl.maximum(tl.math.div_rn(-bottom, 128.0), tl.math.div_rn(top, 127.0)), 1e-8)
        scale = tl.where(eight, wide, scale)
        low = tl.where(eight, -128.0, low)
    if first:
        keep(saved, row, rows, scale, low, low + count)
        tl.store(bits_out + row, bits)
    quantize(x, y, row, size, scale, low, low + count, 0.0, False, BLOCK)


@triton.jit
def symmetric_levels(alpha, bits, signed, k):
    """The step, and the level n that it belongs to, of candidate k."""
    level = tl.exp2(tl.load(bits + k) - tl.load(signed)) - 1.0
    return tl.math.div_rn(tl.maximum(alpha, 1e-8), level), level


@triton.jit
def symmetric_forward(
    x, y, saved, alpha, bits, signed, choice, bounds, rows, size, CHOOSES: tl.constexpr, COUNT: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """SymmetricActivation of one bit-width, or, with `choice` (rows,), each row at its own of COUNT bit-widths."""
    row = tl.program_id(1)
    first = tl.program_id(0) == 0
    chosen = tl.load(choice + row) if CHOOSES else 0
    for k in range(COUNT):
        bounded(alpha, bounds, k, COUNT, first & (row == 0))
    value = clamped(tl.load(alpha + chosen), tl.load(bounds + chosen), tl.load(bounds + COUNT + chosen))
    scale, level = symmetric_levels(value, bits, signed, chosen)
    low = -level * tl.load(signed)
    if first:
        keep(saved, row, rows, scale, low, level)
    quantize(x, y, row, size, scale, low, level, 0.0, False, BLOCK)


@triton.jit
def backward(
    x, grad, grad_x, saved, partial, rows, size, blocks, OFFSET: tl.constexpr, SUMS: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """grad_x, and in `partial` (3, rows, blocks) what the gradients of scale, low and high come from."""
    row = tl.program_id(1)
    block = tl.program_id(0)
    i = block * BLOCK + tl.arange(0, BLOCK)
    at = row.to(tl.int64) * size + i
    scale, low, high = tl.load(saved + row), tl.load(saved + rows + row), tl.load(saved + 2 * rows + row)
    v = tl.load(x + at, mask=i < size, other=0.0).to(tl.float32)
    g = tl.load(grad + at, mask=i < size, other=0.0).to(tl.float32)
    if OFFSET:
        v = v - tl.load(saved + 3 * rows + row)
    v = tl.math.div_rn(v, scale)
    below, above = v < low, v > high
    clips = below | above
    tl.store(grad_x + at, tl.where(clips, 0.0, g), mask=i < size)
    if SUMS:
        z = rounded(clamped(v, low, high))
        at = row * blocks + block
        tl.store(partial + at, tl.sum(g * tl.where(clips, z, z - v)))
        tl.store(partial + rows * blocks + at, tl.sum(tl.where(below, g, 0.0)))
        tl.store(partial + 2 * rows * blocks + at, tl.sum(tl.where(above, g, 0.0)))


@triton.jit
def total(partial, number, r, rows, blocks, ROWS: tl.constexpr, CHUNK: tl.constexpr):
    """The sums of every row's blocks, (ROWS,)."""
    # summed along the row behind the loop: Triton 3.8 fails on a sum that a loop carries
    result = tl.zeros([ROWS, CHUNK], tl.float32)
    for start in range(0, blocks, CHUNK):
        c = start + tl.arange(0, CHUNK)
        inside = (r[:, None] < rows) & (c[None, :] < blocks)
        at = (number * rows + r[:, None]) * blocks + c[None, :]
        result += tl.load(partial + at, mask=inside, other=0.0)
    return tl.sum(result, axis=1)


@triton.jit
def given_finish(partial, saved, grads, rows, blocks, ROWS: tl.constexpr, CHUNK: tl.constexpr):
    """Gradients (4, rows) of scale, low, high and offset."""
    r = tl.arange(0, ROWS)
    scale = tl.load(saved + r, mask=r < rows, other=0.0)
    below = total(partial, 1, r, rows, blocks, ROWS, CHUNK)
    above = total(partial, 2, r, rows, blocks, ROWS, CHUNK)
    tl.store(grads + r, total(partial, 0, r, rows, blocks, ROWS, CHUNK), mask=r < rows)
    tl.store(grads + rows + r, below * scale, mask=r < rows)
    tl.store(grads + 2 * rows + r, above * scale, mask=r < rows)
    tl.store(grads + 3 * rows + r, below + above, mask=r < rows)


@triton.jit
def learned_finish(partial, saved, step, zero_point, signed, bounds, grads, blocks, elements,
                   BITS: tl.constexpr, CHUNK: tl.constexpr):  # fmt: skip
    """Gradients (2,) of step and zero point, over `elements` of the whole batch."""
    r = tl.arange(0, 1)
    value, scale = tl.load(step + r), tl.load(saved + r)
    low, high = learned_levels(signed, BITS)
    factor = tl.math.div_rn(1.0, tl.sqrt_rn(elements * high))
    to_scale = total(partial, 0, r, 1, blocks, 1, CHUNK)
    tl.store(grads + r, tl.where(value >= 1e-8, to_scale * factor, 0.0))
    if BITS != 8:
        shifts = total(partial, 1, r, 1, blocks, 1, CHUNK) + total(partial, 2, r, 1, blocks, 1, CHUNK)
        zero = rounded(clamped(tl.load(zero_point + r), -1e5, 1e5))
        # at a bound torch's clamp shares the gradient with it
        share = tl.where((zero == low) | (zero == high), 0.5, tl.where((zero > low) & (zero < high), 1.0, 0.0))
        tl.store(grads + 1 + r, -shifts * scale * factor * share)
    mark(bounds, r, 1, value, value)


@triton.jit
def range_finish(
    partial, saved, bits, lower, upper, signed, measure, grad_bits, bounds, grads, rows, blocks,
    MAPPED: tl.constexpr, FROM_BITS: tl.constexpr, ASYMMETRIC: tl.constexpr, ROWS: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """Gradients (3 + rows,) of lower, upper, measure and of each row's image factor."""
    r = tl.arange(0, ROWS)
    inside = r < rows
    scale = tl.load(saved + r, mask=inside, other=1.0)
    bits = tl.load(bits + r, mask=inside, other=2.0)
    bottom, top = tl.load(lower), tl.load(upper)
    negative = tl.load(signed).to(tl.int1)
    moves = negative & (bottom <= 0.0)
    base = tl.where(moves, bottom, 0.0)
    count = tl.exp2(bits) - 1.0
    eight = negative & (bits > (1e9 if ASYMMETRIC else 7.5))
    to_scale = total(partial, 0, r, rows, blocks, ROWS, CHUNK)
    to_high = total(partial, 2, r, rows, blocks, ROWS, CHUNK) * scale
    to_low = to_high + total(partial, 1, r, rows, blocks, ROWS, CHUNK) * scale
    # step = (top - base) / count and low = base / step, where the levels are not fixed
    step = tl.math.div_rn(top - base, count)
    narrow = tl.maximum(step, 1e-8)
    to_step = to_scale - to_low * base / (narrow * narrow)
    to_step = tl.where(eight, 0.0, tl.where(step >= 1e-8, to_step, 0.0))
    to_base = tl.where(eight, 0.0, to_low / narrow) - to_step / count
    to_top = to_step / count
    to_count = to_high - to_step * step / count
    # step = max(-base / 128, top / 127), where they are
    left, right = -base / 128.0, top / 127.0
    to_wide = tl.where(eight, tl.where(tl.maximum(left, right) >= 1e-8, to_scale, 0.0), 0.0)
    share = tl.where(left > right, 1.0, tl.where(left == right, 0.5, 0.0))
    to_base -= to_wide * share / 128.0
    to_top += to_wide * (1.0 - share) / 127.0
    tl.store(grads, tl.where(moves, tl.sum(tl.where(inside, to_base, 0.0)), 0.0))
    tl.store(grads + 1, tl.sum(tl.where(inside, to_top, 0.0)))
    if MAPPED:
        to_bits = to_count * (count + 1.0) * 0.6931471805599453
        if FROM_BITS:
            to_bits += tl.load(grad_bits + r, mask=inside, other=0.0)
        soft = tl.load(measure)
        soft = 2.0 / (1.0 + tl.exp(-2.0 * soft)) - 1.0
        tl.store(grads + 2, tl.sum(tl.where(inside, to_bits, 0.0)) * (1.0 - soft * soft))
        tl.store(grads + 3 + r, to_bits, mask=inside)
    mark(bounds, 0, 2, bottom, top - bottom)
    mark(bounds, 1, 2, top, top - bottom)


@triton.jit
def symmetric_finish(partial, alpha, bits, signed, bounds, grads, blocks, CHUNK: tl.constexpr):
    """The gradient (1,) of alpha."""
    r = tl.arange(0, 1)
    value = tl.load(alpha + r)
    _, level = symmetric_levels(value, bits, signed, r)
    tl.store(grads + r, tl.where(value >= 1e-8, total(partial, 0, r, 1, blocks, 1, CHUNK) / level, 0.0))
    mark(bounds, r, 1, value, value)

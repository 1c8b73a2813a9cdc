"""Rounding as a host's converter finds it in a traced network: constants that OpenVINO turns into INT8 arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from qsci_plugins.errors import UserError
from qsci_plugins.schemes.quantizer import QParams
from qsci_plugins.schemes.rounding import int8_bounds, to_integers

__all__ = ["as_exported_fake_quantize", "as_fake_quantize"]

_ELEMENTWISE = ("aten::add", "aten::sub", "aten::rsub", "aten::mul", "aten::div")


@contextmanager
def _outside_of_the_trace() -> Iterator[None]:
    """What is computed inside stands in the trace as constants, the same with and without gradients."""
    state = torch._C._get_tracing_state()
    torch._C._set_tracing_state(None)
    try:
        with torch.no_grad():
            yield
    finally:
        torch._C._set_tracing_state(state)


def as_fake_quantize(x: Tensor, qparams: Callable[[Tensor], QParams], *, weight: bool) -> Tensor | None:
    """x rounded by a clamp to the levels and a fake-quantize of all INT8 levels with the same step; None without such.

    Raises UserError for an activation whose bits depend on the sample: a trace would keep those of its example.
    """
    with _outside_of_the_trace():
        p = qparams(x)
        lowest, highest = p.low * p.scale, p.high * p.scale
        step = p.scale.flatten().expand(x.shape[0]).contiguous() if weight else p.scale
        zero = torch.zeros(len(step) if weight else 1, dtype=torch.int32, device=x.device)
        low, high = p.low.min().item(), p.high.max().item()
    if not weight and p.bit_width.dim() > 0:
        raise UserError(
            "this network chooses its bits for every image, which no trace keeps; call qsci_plugins.export(quantized,"
            " folder, tile=...) instead, or quantize it with static bits (AdaBM: image_mapping=False)"
        )
    if p.offset is not None:
        return None
    bounds = int8_bounds(low, high)
    if low != round(low) or high != round(high) or bounds is None:
        return None
    if weight and low < -127:  # one level more than a fake-quantize that OpenVINO folds into int8
        with _outside_of_the_trace():
            integers = to_integers(x, p.scale, None, p.low, p.high).to(torch.int8)
            step = step.reshape(-1, *[1] * (x.dim() - 1))
        return integers.to(x.dtype) * step
    if weight:
        x = torch.minimum(torch.maximum(x, lowest), highest)
        # 255 levels: all that OpenVINO folds into int8 weights
        return torch.fake_quantize_per_channel_affine(x, step, zero, 0, -127, 127)
    if p.scale.numel() != 1:
        return None
    step_value = float(step)
    if x.dim() >= 4 and _is_elementwise(x):
        # by channel, though all are equal: a clamp, or nothing, would let OpenVINO's CPU plugin (2026.4) compute with
        # the first channel's mean in all of them, where the shape was left open (x - mean ahead of the first layer)
        with _outside_of_the_trace():
            channels = step.new_ones(1, int(x.shape[1]), *[1] * (x.dim() - 2))
            least, greatest = channels * (low * step_value), channels * (high * step_value)
        x = torch.minimum(torch.maximum(x, least), greatest)
    elif (low, high) != bounds:
        x = x.clamp(low * step_value, high * step_value)
    return torch.fake_quantize_per_tensor_affine(x, step_value, 0, *bounds)


def _is_elementwise(x: Tensor) -> bool:
    """Whether arithmetic made the traced x, which a converter may join with the rounding of it."""
    return torch._C._get_value_trace(x).node().kind().rstrip("_") in _ELEMENTWISE


def as_exported_fake_quantize(
    x: Tensor, qparams: Callable[[Tensor], QParams], fits_int8: bool, *, weight: bool
) -> Tensor | None:
    """`as_fake_quantize` for `torch.export`, which follows tensors alone: a converter computes the constants from them.

    Nothing can be read, so that what 256 levels there are is in the zero point; `fits_int8` says that they do.
    """
    with torch.no_grad():
        p = qparams(x)
        if p.offset is not None or p.bit_width.dim() > 0 or not fits_int8:
            return None
        if not weight and p.scale.numel() != 1:
            return None
        lowest, highest = p.low * p.scale, p.high * p.scale
        if weight:
            x = torch.minimum(torch.maximum(x, lowest), highest)
            step = p.scale.flatten().expand(x.shape[0])
            zero = torch.zeros(x.shape[0], dtype=torch.int32, device=x.device)
            return torch.fake_quantize_per_channel_affine(x, step, zero, 0, -127, 127)
        x = torch.minimum(torch.maximum(x, lowest), highest)
        low = p.low.reshape(1)
        # as `int8_bounds`: u8, i8, or what begins at the lowest level
        zero = torch.where(low < 0, torch.where(p.high > 127, -1.0 * low, 128.0), 0.0).to(torch.int32)
        return torch.fake_quantize_per_tensor_affine(x, p.scale.reshape(1), zero, 0, 255)

"""Convolutions and linear layers whose weights are INT8 constants, in the form that OpenVINO's CPU plugin runs as such."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qsci_plugins.openvino.grids import Grid
from qsci_plugins.schemes.bit_width import current_ledger
from qsci_plugins.schemes.quantizer import Quantizer

__all__ = [
    "DynamicLayer",
    "FloatWeight",
    "IntegerWeight",
    "SkippedBlock",
    "StaticLayer",
    "border_weights",
    "constant_response",
    "pads_with_zeros",
    "rounded",
]


class IntegerWeight(nn.Module):
    """int8 constants and a step per output channel; the dequantized weight, which OpenVINO never makes."""

    integers: Tensor
    step: Tensor

    def __init__(self, integers: Tensor, step: Tensor) -> None:
        super().__init__()
        self.register_buffer("integers", integers)
        self.register_buffer("step", step)

    def forward(self) -> Tensor:
        return self.integers.float() * self.step


class FloatWeight(nn.Module):
    """A weight that the scheme leaves alone."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight)

    def forward(self) -> Tensor:
        assert isinstance(self.weight, Tensor)
        return self.weight


class StaticLayer(nn.Module):
    """y = layer(Q(x)) where Q rounds to a constant grid of b bits.

    A clamp to the grid's b-bit range comes before a FakeQuantize of 256 levels with the same step: the same values as
    b-bit rounding, and the only number of levels that becomes integer arithmetic. A grid beyond INT8 is split into
    parts that add up to it, side by side in the channels, each with a copy of the weights; this is exact. A real offset
    per channel goes into the bias, and where zeros pad the input, into channels of ones (see `border_weights`).
    `output`, of one part and without an offset, is the grid that y is rounded to in turn.
    """

    def __init__(
        self,
        layer: nn.Module,
        weight: nn.Module,
        bias: Tensor | None,
        grid: Grid | None,
        output: Grid | None = None,
    ) -> None:
        super().__init__()
        _copy_settings(layer, self)
        self.grid = grid
        self.output = output
        self.ones = 0
        offset = None if grid is None else grid.offset
        border = None
        if grid is not None and offset is not None:
            folded = constant_response(layer, weight(), offset)
            if isinstance(weight, IntegerWeight) and pads_with_zeros(layer) and layer.groups == 1:
                border = border_weights(weight.integers, offset / grid.step)
                self.ones = border.shape[1]
                folded = folded - (border.float() * weight.step).flatten(1).sum(1) * grid.step
            bias = folded if bias is None else bias + folded
        if grid is not None and grid.parts > 1:
            _repeat_inputs(layer, weight, grid.parts)
        if border is not None:
            assert isinstance(weight, IntegerWeight)
            weight.integers = torch.cat([weight.integers, border], 1)
        self.layer = _without_tensors(layer)
        self.weight = weight
        self.register_buffer("bias", bias)
        self.register_buffer("offset", offset)

    def forward(self, x: Tensor) -> Tensor:
        if self.grid is not None:
            _note(self, torch.tensor(self.grid.bits))
            x = self.quantize(x, self.grid)
        return rounded(_run(self.layer, x, self.weight(), self.bias), self.output)  # type: ignore[arg-type]

    def quantize(self, x: Tensor, grid: Grid) -> Tensor:
        """The parts of x on the grid, without its offset."""
        if self.offset is not None:
            x = x - self.offset  # type: ignore[operator]
        bounds, step = grid.bounds, grid.step
        if (grid.low, grid.high) != bounds:
            x = x.clamp(grid.low * step, grid.high * step)
        parts = []
        for _ in range(grid.parts - 1):
            part = x.clamp(bounds[0] * step, bounds[1] * step)
            parts.append(part)
            x = x - part
        parts.append(x)
        # a clamp to one value, unlike a constant plane, has no size of its own and takes no room in a file
        parts += [x[:, :1].clamp(step, step)] * self.ones
        x = _beside(parts, self.layer) if len(parts) > 1 else x
        return torch.fake_quantize_per_tensor_affine(x, step, 0, *bounds)


class DynamicLayer(nn.Module):
    """y = layer(z) * step + bias with z = round(clamp(x / step, low, high)), the step chosen in the graph per sample.

    The FakeQuantize keeps constant ranges, because a step per sample commutes with the layer: `bounds`, 256 levels that
    hold low..high whatever is chosen. `output`, of one part and without an offset, is the constant grid that y is rounded
    to in turn.
    """

    def __init__(
        self,
        layer: nn.Module,
        weight: nn.Module,
        bias: Tensor | None,
        quantizer: Quantizer,
        bounds: tuple[int, int],
        output: Grid | None = None,
    ) -> None:
        super().__init__()
        _copy_settings(layer, self)
        self.output = output
        self.quantizer = quantizer
        self.bounds = bounds
        self.layer = _without_tensors(layer)
        self.weight = weight
        if bias is not None and not isinstance(layer, nn.Linear):
            bias = bias.reshape(-1, *[1] * (len(layer.kernel_size)))  # type: ignore[arg-type]
        self.register_buffer("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        p = self.quantizer.qparams(x)
        _note(self, p.bit_width)
        z = torch.minimum(torch.maximum(x / p.scale, p.low), p.high)
        z = torch.fake_quantize_per_tensor_affine(z, 1.0, 0, *self.bounds)
        y = _run(self.layer, z, self.weight(), None) * p.scale
        return rounded(y if self.bias is None else y + self.bias, self.output)  # type: ignore[operator]


def _note(layer: nn.Module, bits: Tensor) -> None:
    ledger = current_ledger()
    if ledger is not None:
        ledger.add(layer, bits)


def rounded(y: Tensor, grid: Grid | None) -> Tensor:
    """y on a grid of one part without an offset: a clamp to its range, then 256 levels."""
    if grid is None:
        return y
    bounds = grid.bounds
    if (grid.low, grid.high) != bounds:
        y = y.clamp(grid.low * grid.step, grid.high * grid.step)
    return torch.fake_quantize_per_tensor_affine(y, grid.step, 0, *bounds)


def _run(layer: nn.Module, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The layer with another weight: stride, padding and its mode, dilation and groups stay its own."""
    if isinstance(layer, nn.Linear):
        return F.linear(x, weight, bias)
    return layer._conv_forward(x, weight, bias)  # type: ignore[operator]


def _copy_settings(layer: nn.Module, lowered: nn.Module) -> None:
    """in_features, stride and the like: networks read them from their layers."""
    for name in layer.__constants__:  # type: ignore[union-attr]
        setattr(lowered, name, getattr(layer, name, None))


def _without_tensors(layer: nn.Module) -> nn.Module:
    """The layer as a bearer of settings; its float tensors would be exported else."""
    layer.register_parameter("weight", None)
    layer.register_parameter("bias", None)
    return layer


def _beside(parts: list[Tensor], layer: nn.Module) -> Tensor:
    """Parts side by side in the channels of every group of the layer."""
    if isinstance(layer, nn.Linear):
        return torch.cat(parts, -1)
    groups = int(layer.groups)  # type: ignore[arg-type]
    if groups == 1:
        return torch.cat(parts, 1)
    return torch.cat([part.unflatten(1, (groups, -1)) for part in parts], 2).flatten(1, 2)


def _repeat_inputs(layer: nn.Module, weight: nn.Module, parts: int) -> None:
    """Widens a layer to `parts` copies of its input channels, group by group."""
    for name, tensor in weight.named_buffers():
        if name != "step":
            weight.register_buffer(name, tensor.repeat(1, parts, *[1] * (tensor.dim() - 2)))
    if not isinstance(layer, nn.Linear):
        layer.in_channels *= parts  # type: ignore[operator, assignment]


def pads_with_zeros(layer: nn.Module) -> bool:
    """Whether a convolution sees zeros around its input."""
    padding = getattr(layer, "padding", 0)
    zeros = getattr(layer, "padding_mode", "zeros") == "zeros"
    return zeros and (padding == "same" or (isinstance(padding, tuple) and any(padding)))


def constant_response(layer: nn.Module, weight: Tensor, offset: Tensor) -> Tensor:
    """What a constant input plane, `offset` in every channel, adds to each output channel: a part of the bias."""
    if isinstance(layer, nn.Linear):
        return F.linear(offset.reshape(-1).expand(layer.in_features), weight)
    channels = int(layer.in_channels)  # type: ignore[arg-type]
    groups = int(layer.groups)  # type: ignore[arg-type]
    sums = weight.flatten(2).sum(2).reshape(groups, -1, channels // groups)
    per_channel = offset.reshape(-1).expand(channels).reshape(groups, -1, 1)
    return (sums @ per_channel).flatten()


def border_weights(integers: Tensor, offset: Tensor) -> Tensor:
    """int8 weights (O,n,...) of n more input channels that are 1 inside the image, and 0 where zeros pad it.

    With them a zero-padded convolution (O,C,...) gets the offset (in steps) inside alone, as it must, to half a unit
    of its weights; the bias would put it on the padding too. n is as small as int8 allows.
    """
    per_channel = offset.reshape(1, -1, *[1] * (integers.dim() - 2))
    rest = (integers.float() * per_channel).sum(1, keepdim=True).round()
    parts = []
    while bool(rest.any()):
        parts.append(rest.clamp(-127, 127))
        rest = rest - parts[-1]
    return torch.cat(parts, 1).to(torch.int8) if parts else integers[:, :0]


class SkippedBlock(nn.Module):
    """In place of a residual block: its skip connection alone."""

    def forward(self, x: Tensor, *others: Any, **named: Any) -> Tensor:
        return x

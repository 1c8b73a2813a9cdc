"""Reads a scheme's quantizers as constants: what is left of them in a network that runs in integers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from qsci_plugins.errors import UserError
from qsci_plugins.schemes.content import Content, current_content, set_content
from qsci_plugins.schemes.quantizer import QParams, Quantizer
from qsci_plugins.schemes.rounding import I8, int8_bounds

__all__ = [
    "FACTORS",
    "Grid",
    "image_factor",
    "layer_input",
    "read_choices",
    "read_grid",
    "read_qparams",
    "read_weight",
    "varies",
]

#: the image factors of a routed export
FACTORS = (-1, 0, 1)

#: more INT8 parts of one activation than this are no longer worth it
_MOST_PARTS = 4


@dataclass(frozen=True)
class Grid:
    """An activation x ~ z * step + offset with integers z in low..high; `bits` is what FAB counts."""

    step: float
    low: int
    high: int
    offset: Tensor | None
    bits: float

    @property
    def bounds(self) -> tuple[int, int]:
        """The least and the greatest level of each part."""
        return int8_bounds(self.low, self.high) or I8

    @property
    def parts(self) -> int:
        """How many INT8 tensors must be added up to reach low..high."""
        return 1 if int8_bounds(self.low, self.high) else max(-(-self.high // 127), -(self.low // 128))


@contextmanager
def image_factor(factor: int) -> Iterator[None]:
    """Quantizers asked inside the block answer for one image with this factor, whichever scheme they belong to."""
    before = current_content()
    set_content(Content(torch.zeros(1), torch.zeros(1, 2), torch.tensor([float(factor)])))
    try:
        yield
    finally:
        set_content(before)


def layer_input(layer: nn.Module) -> Tensor:
    """Zeros in the shape of a small input of a convolution or linear layer."""
    if isinstance(layer, nn.Linear):
        return torch.zeros(1, 8, layer.in_features)
    kernel = layer.kernel_size
    assert isinstance(kernel, tuple)
    return torch.zeros(1, int(layer.in_channels), *[max(8, size) for size in kernel])  # type: ignore[arg-type]


@torch.no_grad()
def read_qparams(quantizer: Quantizer, x: Tensor, factor: int) -> QParams:
    """The qparams for an input like x, given the image factor, on the CPU."""
    with image_factor(factor):
        return _on_cpu(quantizer.qparams(x.to(_device(quantizer))))


@torch.no_grad()
def read_choices(quantizer: Quantizer, x: Tensor) -> QParams:
    """Everything an input-dependent quantizer may answer for an input like x, on the CPU."""
    with image_factor(0):
        return _on_cpu(quantizer.choices(x.to(_device(quantizer))))


def read_grid(quantizer: Quantizer, x: Tensor, factor: int, name: str, *, padded: bool = False) -> Grid:
    """The grid of tensors like x, called `name` in errors; `padded` by zeros thereafter, as a convolution does.

    Raises UserError where the quantizer's answer is no constant, or cannot run in integers: a step per input channel
    stays inside the channel sum, and a real offset is not what zero padding pads with.
    """
    p = read_qparams(quantizer, x, factor)
    other = read_qparams(quantizer, torch.full_like(x, 100.0).cumsum(-1), factor)
    if any(not torch.equal(a, b) for a, b in zip(p, other, strict=True) if a is not None and b is not None):
        raise UserError(
            f"{name}: its bits depend on the features, not on the image alone, and its quantizer does not say so"
            " (`input_dependent`); without that there is no export: set export.openvino.mode: none"
        )
    if p.scale.numel() != 1 or p.low.numel() != 1 or p.high.numel() != 1:
        raise UserError(f"{name}: a step per input channel cannot run in integers; set scheme.form: integer")
    step, low, high = p.scale.item(), p.low.item(), p.high.item()
    if low != round(low) or high != round(high):
        raise UserError(f"{name}: levels {low}..{high} are no integers; set scheme.form: integer")
    offset = p.offset
    if offset is not None and padded and bool((offset.abs() > 0.5001 * step).any()):
        raise UserError(f"{name}: a real zero point cannot run in integers; set scheme.form: integer")
    grid = Grid(step, int(low), int(high), offset, p.bit_width.float().mean().item())
    if grid.parts > _MOST_PARTS:
        raise UserError(f"{name}: activation levels {low:.0f}..{high:.0f} are too many for INT8; use 8 bits or less")
    return grid


def varies(quantizer: Quantizer | None, x: Tensor) -> bool:
    """Whether the grid of tensors like x depends on the image factor."""
    if quantizer is None:
        return False
    answers = [read_qparams(quantizer, x, factor) for factor in FACTORS]
    first = answers[0]
    return any(not torch.equal(a.scale, first.scale) or not torch.equal(a.high, first.high) for a in answers[1:])


@torch.no_grad()
def read_weight(quantizer: Quantizer, weight: Tensor, name: str) -> tuple[Tensor, Tensor]:
    """The weight as int8 of the same shape, and its step: one value, or one per output channel.

    Raises UserError where it cannot run in integers.
    """
    p = quantizer.qparams(weight)
    if p.offset is not None:
        raise UserError(f"{name}: weights with a real zero point cannot run in integers; set scheme.form: integer")
    if p.scale.numel() not in (1, weight.shape[0]) or (p.scale.numel() > 1 and p.scale.shape[0] != weight.shape[0]):
        raise UserError(f"{name}: a weight step per input channel cannot run in integers; set scheme.form: integer")
    integers = quantizer.integers(weight)
    if integers.max() > 127 or integers.min() < -128:
        raise UserError(f"{name}: weights of {p.bit_width.max().item():.0f} bits do not fit INT8; use 8 bits or less")
    step = p.scale.detach().reshape(-1, *[1] * (weight.dim() - 1))
    return integers.to(torch.int8).cpu(), step.cpu().clone()


def _on_cpu(p: QParams) -> QParams:
    offset = None if p.offset is None else p.offset.detach().cpu()
    return QParams(
        p.scale.detach().cpu(), offset, p.low.detach().cpu(), p.high.detach().cpu(), p.bit_width.detach().cpu()
    )


def _device(module: nn.Module) -> torch.device:
    tensors = [*module.parameters(), *module.buffers()]
    return tensors[0].device if tensors else torch.device("cpu")

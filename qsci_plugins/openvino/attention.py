"""The products q k^T and map v of an attention with constant grids for their operands."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from qsci_plugins.errors import UserError
from qsci_plugins.openvino.grids import Grid, read_grid, varies
from qsci_plugins.openvino.layers import rounded
from qsci_plugins.schemes.attention import AttentionQuantizers
from qsci_plugins.schemes.quantizer import QParams, Quantizer

__all__ = ["Operand", "lower_attention"]


class Operand(Quantizer):
    """Rounds a tensor to a constant grid, as 256 levels.

    With that OpenVINO multiplies u8 and i8, quantizers, products and softmax being one kernel. The other way, a rounding
    in float that it does not recognise, made the attentions of EfficientSCI-T take twice as long (8 frames, heads of 4
    channels, bf16 for the rest), and the whole network a tenth longer.
    """

    def __init__(self, grid: Grid) -> None:
        super().__init__()
        self.grid = grid
        self.calibrated.fill_(True)

    def qparams(self, x: Tensor) -> QParams:
        grid = self.grid
        step, low, high, bits = (torch.tensor(float(v)) for v in (grid.step, grid.low, grid.high, grid.bits))
        return QParams(step, None, low, high, bits)

    def simulate(self, x: Tensor) -> Tensor:
        return rounded(x, self.grid)


def lower_attention(attention: AttentionQuantizers, image_factor: int | None, name: str) -> AttentionQuantizers:
    """A copy whose quantizers are constants; shifts, scales and the places of the products stay what they are.

    Raises UserError where a grid does not fit INT8 or is no constant.
    """
    lowered = copy.deepcopy(attention).cpu()
    lowered.query.quantizer = _operand(attention.query.quantizer, image_factor, f"{name} (query)")
    lowered.key.quantizer = _operand(attention.key.quantizer, image_factor, f"{name} (key)")
    lowered.value = _operand(attention.value, image_factor, f"{name} (value)")
    lowered.map = _operand(attention.map, image_factor, f"{name} (map)")
    return lowered


def _operand(quantizer: Quantizer, image_factor: int | None, name: str) -> Operand:
    # (images, heads, tokens, channels of a head): a quantizer with a step per head refuses any other number of heads
    x = torch.zeros(1, getattr(quantizer, "channels", 1), 8, 8)
    if image_factor is None and varies(quantizer, x):
        raise UserError(f"{name}: its bits depend on the image; export it routed")
    grid = read_grid(quantizer, x, image_factor or 0, name)
    if grid.parts > 1 or grid.offset is not None:
        raise UserError(f"{name}: its levels do not fit INT8; use 8 bits or less and scheme.form: integer")
    return Operand(grid)

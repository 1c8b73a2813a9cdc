"""An 8-bit image is quantized already: the first layer reads it on its own grid and loses nothing."""

from __future__ import annotations

import torch
from torch import Tensor

from qsci_plugins.schemes.activation import RangeActivation
from qsci_plugins.schemes.bit_width import StaticBitWidth
from qsci_plugins.schemes.quantizer import QParams

__all__ = ["ImageGridActivation"]

#: more different values in one channel than this, and the tensor is no 8-bit image
_VALUES = 256


class ImageGridActivation(RangeActivation):
    """Eight bits on the grid `step * k + offset` of the images seen, if they lie on one; an ordinary range if not.

    Networks subtract a mean and scale the image, which moves its 256 values but keeps them on a grid, with an offset of
    its own for every channel. k counts from the value nearest to 0, so that a zero-padded border stays (almost) 0; it
    reaches beyond -128..127, which the lowering runs as two INT8 halves.
    """

    on_grid: Tensor
    step: Tensor
    offset: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, channels: int, *, clipping: float = 0.5) -> None:
        super().__init__(StaticBitWidth(8), integer=True, clipping=clipping)
        self.channels = channels
        self.register_buffer("on_grid", torch.zeros((), dtype=torch.bool))
        self.register_buffer("step", torch.ones(()))
        self.register_buffer("offset", torch.zeros(1, channels, 1, 1))
        self.register_buffer("low", torch.zeros(()))
        self.register_buffer("high", torch.zeros(()))

    def qparams(self, x: Tensor) -> QParams:
        if not self.on_grid:
            return super().qparams(x)
        return QParams(self.step, self.offset, self.low, self.high, self.step.new_tensor(8.0))

    def reduce(self, x: Tensor) -> Tensor:
        """[min, max, mean deviation, step, then of every channel: offsets, minima, maxima]; step 0: on no grid."""
        grid = x.new_zeros(1 + 3 * self.channels)
        rows = x.transpose(0, 1).flatten(1)
        step = _grid_step(rows)
        if step is not None and x.shape[1] == self.channels:
            first = rows[:, :1]
            # half a step counts as +0.5 in every channel, whatever the last digit says
            offset = first - (first / step + 0.499).floor() * step
            position = (rows - offset) / step
            if (position - position.round()).abs().max() < 0.02:
                grid = torch.cat([step.reshape(1), offset.flatten(), rows.amin(1), rows.amax(1)])
        return torch.cat([super().reduce(x), grid])

    def fit(self, batches: Tensor) -> None:
        grids = batches[:, 3:]
        steps, (offsets, minima, maxima) = grids[:, 0], grids[:, 1:].split(self.channels, 1)
        step = steps[0].clamp_min(1e-12)
        apart = (offsets - offsets[0]) / step
        on_grid = (
            (steps > 0).all()
            and ((steps / step - 1).abs() < 0.01).all()
            and ((apart - apart.round()).abs() < 0.02).all()
        )
        self.on_grid.copy_(on_grid)
        if on_grid:
            self.step.copy_(step)
            self.offset.copy_(offsets[0].reshape(1, -1, 1, 1))
            # wherever black and white are, the 256 grey levels of every channel lie between these
            self.low.copy_((((maxima.amax(0) - offsets[0]) / step).round() - 255).amin())
            self.high.copy_((((minima.amin(0) - offsets[0]) / step).round() + 255).amax())
        super().fit(batches)

    def refine(self, x: Tensor) -> None:
        if not self.on_grid:
            super().refine(x)


def _grid_step(rows: Tensor) -> Tensor | None:
    """The spacing of the values of every row (C,M), None where some row has too many or too few of them."""
    steps = []
    for row in rows:
        values = torch.unique(row)
        if not 1 < len(values) <= 2 * _VALUES:
            return None
        gaps = values.diff()
        # what float arithmetic makes of equal grey levels is no step
        gaps = gaps[gaps > 1e-4 * (values[-1] - values[0])]
        steps.append((values[-1] - values[0]) / ((values[-1] - values[0]) / gaps.min()).round())
    return torch.stack(steps).amin()

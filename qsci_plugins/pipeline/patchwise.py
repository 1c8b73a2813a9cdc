"""The quantized network patch by patch, as CADyQ measures it: every patch has bits of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from qsci_plugins.architectures.network import Network
from qsci_plugins.evaluation.bit_meter import BitMeter, ImageForm, PatchBits
from qsci_plugins.evaluation.correlation import pearson, spearman
from qsci_plugins.schemes.bit_width import record_bits
from qsci_plugins.schemes.content import image_gradient
from qsci_plugins.schemes.scheme import QuantizedNetwork

__all__ = ["PatchMeter", "patch_starts"]


def patch_starts(size: int, patch: int, step: int) -> list[int]:
    """Where the patches of an axis begin: every `step` pixels, the last one at the border. One where `patch` covers all."""
    if size <= patch:
        return [0]
    return [*range(0, size - patch, step), size - patch]


@dataclass(frozen=True)
class _Grid:
    """The patches of one image, in low-resolution pixels."""

    tops: list[int]
    lefts: list[int]
    height: int
    width: int

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return ((top, left) for top in self.tops for left in self.lefts)


class PatchMeter(BitMeter):
    """Runs the network on patches of `patch` pixels every `step`, `batch` at a time; where they overlap, their mean."""

    def __init__(self, quantized: QuantizedNetwork, network: Network, patch: int, step: int, batch: int) -> None:
        super().__init__(quantized, network)
        self._network = network
        self._sizes = (patch, step, batch)
        self._last: list[PatchBits] = []
        self._of_the_set: list[PatchBits] = []

    def form(self) -> ImageForm:
        """This network as one row of the table, with the correlation of gradient and bits over a set's patches."""
        return ImageForm(self.upscale, lambda: {"fab": self._fabs[-1]}, self._summary, lambda: self._last)

    @torch.no_grad()
    def upscale(self, low: np.ndarray) -> np.ndarray:
        """One image, uint8 (h,w,3) to (scale*h,scale*w,3); the bits of its patches are remembered."""
        quantized, scale = self._quantized, self._network.scale
        device = next(quantized.model.parameters()).device
        gain = quantized.value_range / 255
        height, width = low.shape[:2]
        x = torch.from_numpy(np.ascontiguousarray(low)).to(device).permute(2, 0, 1)[None].float() * gain
        whole = self._network.valid_size(height, width)
        x = F.pad(x, (0, whole[1] - width, 0, whole[0] - height), mode="replicate")
        grid = self._grid(x.shape[2], x.shape[3])
        total = x.new_zeros(3, x.shape[2] * scale, x.shape[3] * scale)
        count = x.new_zeros(1, *total.shape[1:])
        self._last = []
        places = list(grid)
        for start in range(0, len(places), self._sizes[2]):
            batch = places[start : start + self._sizes[2]]
            patches = torch.cat([x[..., top : top + grid.height, left : left + grid.width] for top, left in batch])
            for (top, left), y in zip(batch, self._run(patches, batch), strict=True):
                rows = slice(top * scale, (top + grid.height) * scale)
                columns = slice(left * scale, (left + grid.width) * scale)
                total[:, rows, columns] += y
                count[:, rows, columns] += 1
        self._fabs.append(float(np.mean([patch.fab for patch in self._last])))
        self._of_the_set += self._last
        image = (total / count / gain)[:, : height * scale, : width * scale]
        return image.clamp(0, 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()

    def _run(self, patches: Tensor, places: list[tuple[int, int]]) -> Tensor:
        with record_bits() as ledger:
            output = self._quantized.model(patches)
        fabs = ledger.mean(self._quantized.counted()).expand(len(places)).tolist()
        gradients = image_gradient(patches, self._quantized.value_range)[0].tolist()
        size = (patches.shape[2], patches.shape[3])
        for place, gradient, fab in zip(places, gradients, fabs, strict=True):
            self._last.append(PatchBits(*place, *size, gradient, fab))
        self._note_layers(ledger)
        assert isinstance(output, Tensor)
        return output

    def _grid(self, height: int, width: int) -> _Grid:
        patch, step, _ = self._sizes
        tops, lefts = patch_starts(height, patch, step), patch_starts(width, patch, step)
        return _Grid(tops, lefts, min(patch, height), min(patch, width))

    def _summary(self) -> dict[str, Any]:
        """Of the patches since the last call."""
        patches, self._of_the_set = self._of_the_set, []
        gradients, fabs = [patch.gradient for patch in patches], [patch.fab for patch in patches]
        correlation = {"spearman": spearman(gradients, fabs), "pearson": pearson(gradients, fabs)}
        return {"patches": {"count": len(patches), "gradient_and_fab": correlation}}

"""Float and quantized networks in torch, on images and measurements of any size."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qsci_plugins.data.snapshots import mask_sum
from qsci_plugins.errors import UserError
from qsci_plugins.machine import MAX_MEMORY, memory_limit

__all__ = ["TorchReconstructor", "torch_upscaler"]

#: what networks with attention between frames take for each pair of frames and each pixel
_PAIR_BYTES = 9


class TorchReconstructor:
    """A network and a mask (T,H,W) of 0..1; `openvino.reconstructor.Reconstructor` does the same with an exported one.

    Where the network wants multiples of a size, measurement and mask are mirrored up to it and the frames cut back. Raises
    UserError for a network that fails at this mask's size or number of frames, and for a mask of so many frames that the
    attention between them would take more than `machine.memory_limit`.
    """

    def __init__(self, module: nn.Module, mask: np.ndarray, size_multiple: int = 1) -> None:
        needed, limit = _PAIR_BYTES * len(mask) * mask.size, memory_limit()
        if needed > limit:
            raise UserError(
                f"a mask of {len(mask)} frames of {mask.shape[2]}x{mask.shape[1]} pixels takes about"
                f" {needed / 2**30:.3g} GiB, more than the limit of {limit / 2**30:g}; cut the scene into parts, or raise"
                f" {MAX_MEMORY}"
            )
        self._module = module.eval()
        self._size = (mask.shape[1], mask.shape[2])
        self._pad = (-mask.shape[2] % size_multiple, -mask.shape[1] % size_multiple)
        self._device = next((tensor.device for tensor in module.parameters()), torch.device("cpu"))
        self._mask = self._padded(torch.from_numpy(np.asarray(mask, np.float32)))
        self._sum = mask_sum(self._mask)

    @torch.no_grad()
    def reconstruct(self, measurement: np.ndarray) -> np.ndarray:
        """The frames (T,H,W), or in colour (3,T,H,W), of a measurement (H,W) of frames in 0..1. Not clamped."""
        if measurement.shape != self._size:
            raise UserError(
                f"the measurement is {measurement.shape[1]}x{measurement.shape[0]} pixels, the mask"
                f" {self._size[1]}x{self._size[0]}; they must be of one camera"
            )
        y = self._padded(torch.from_numpy(np.asarray(measurement, np.float32))[None])
        try:
            frames = self._module(y, self._mask[None], self._sum[None])[0]
        except torch.OutOfMemoryError:
            raise  # the command says the way out
        except (RuntimeError, ValueError) as error:
            shape = "x".join(map(str, reversed(self._mask.shape)))
            reason = str(error).strip().splitlines()[0]
            raise UserError(f"the network cannot reconstruct {shape} (width x height x frames): {reason}") from error
        frames = frames[..., : self._size[0], : self._size[1]]
        return np.ascontiguousarray(frames.float().cpu().numpy())

    def _padded(self, images: Tensor) -> Tensor:
        """(C,H,W) mirrored at the right and the lower border."""
        right, bottom = self._pad
        if right or bottom:
            mode = "reflect" if right < images.shape[2] and bottom < images.shape[1] else "replicate"
            images = F.pad(images[None], (0, right, 0, bottom), mode=mode)[0]
        return images.to(self._device)


def torch_upscaler(
    module: nn.Module,
    value_range: float,
    scale: int,
    valid_size: Callable[[int, int], tuple[int, int]] = lambda height, width: (height, width),
) -> Callable[[np.ndarray], np.ndarray]:
    """The whole image through a network at once: uint8 (h,w,3) to uint8 (scale*h,scale*w,3).

    `valid_size` (see `Network`) enlarges a height and width to what the network takes: the right and lower borders are
    mirrored up to it and cut off again.
    """
    device = next((tensor.device for tensor in module.parameters()), torch.device("cpu"))

    @torch.no_grad()
    def upscale(low: np.ndarray) -> np.ndarray:
        height, width = low.shape[:2]
        x = torch.from_numpy(np.ascontiguousarray(low)).to(device).permute(2, 0, 1)[None].float() * (value_range / 255)
        wanted = valid_size(height, width)
        pad = (wanted[1] - width, wanted[0] - height)
        if any(pad):
            # as far as an image can be mirrored once, and the last pixels beyond
            mirrored = (min(pad[0], width - 1), min(pad[1], height - 1))
            x = F.pad(x, (0, mirrored[0], 0, mirrored[1]), mode="reflect")
            x = F.pad(x, (0, pad[0] - mirrored[0], 0, pad[1] - mirrored[1]), mode="replicate")
        y = module(x)[0, :, : scale * height, : scale * width] * (255 / value_range)
        return y.clamp(0, 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()

    return upscale

"""What an image looks like, measured once per forward and read by every quantizer of that forward."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = [
    "Content",
    "ImageContent",
    "InputModule",
    "current_content",
    "image_gradient",
    "matching_quantiles",
    "set_content",
]

#: weights of red, green and blue in grey, as OpenCV's RGB2GRAY has them
_GREY = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Content:
    """The image statistics of the forward under way.

    `gradient` (N,) and `gradient_xy` (N,2) are those of `image_gradient`; `image_factor` (N,) in {-1,0,1} is AdaBM's.
    """

    gradient: Tensor
    gradient_xy: Tensor
    image_factor: Tensor | None = None


# A ContextVar rather than an attribute: nothing goes stale after a deepcopy or a reload, and threads do not mix.
_CURRENT: ContextVar[Content | None] = ContextVar("qsci_content", default=None)


def set_content(content: Content | None) -> None:
    """Makes `content` what the quantizers of this forward read."""
    _CURRENT.set(content)


def current_content() -> Content | None:
    """The content of the forward under way, None outside one."""
    return _CURRENT.get()


def image_gradient(image: Tensor, value_range: float = 255.0) -> tuple[Tensor, Tensor]:
    """Mean absolute Sobel gradient of grey images, times 1000.

    `image` is (N,3,H,W) RGB (any other channel count is averaged) in 0..value_range, or (N,H,W), such as a snapshot
    measurement. Returns (|gx| + |gy|) / 2, (N,), as AdaBM uses it, and |gx|, |gy|, (N,2), as CADyQ does, averaged over
    pixels. Sobel kernels are divided by 8, borders replicated.
    """
    image = image.detach() / value_range
    if image.dim() == 3:
        image = image.unsqueeze(1)
    if image.shape[1] == 3:
        grey = sum(weight * image[:, c : c + 1] for c, weight in enumerate(_GREY))
    else:
        grey = image.mean(1, keepdim=True)
    assert isinstance(grey, Tensor)
    padded = F.pad(grey, (1, 1, 1, 1), mode="replicate")
    gradients = _sobel(padded) if grey.device.type == "cpu" else _sobel_by_differences(padded)
    gradient_xy = gradients.abs().mean((2, 3)) * 1000
    return gradient_xy.mean(1), gradient_xy


def _sobel(x: Tensor) -> Tensor:
    """(N,1,H,W) -> (N,2,H-2,W-2), along x and along y."""
    slope = torch.arange(-1, 2, dtype=x.dtype)
    kernel = (2 - slope.abs())[:, None] * slope / 8
    return F.conv2d(x, torch.stack([kernel, kernel.T])[:, None])


def _sobel_by_differences(x: Tensor) -> Tensor:
    """The same on a GPU, whose convolutions may round their input to 10 bits (TF32), and which would be waited for to
    take a kernel from the CPU.
    """
    across = x[..., 2:] - x[..., :-2]
    down = x[..., 2:, :] - x[..., :-2, :]
    along_x = across[..., :-2, :] + 2 * across[..., 1:-1, :] + across[..., 2:, :]
    along_y = down[..., :-2] + 2 * down[..., 1:-1] + down[..., 2:]
    return torch.cat([along_x, along_y], 1) / 8


def matching_quantiles(values: Tensor, sample: Tensor, other: Tensor) -> Tensor:
    """Where `values` (K,) lie in `other` (Q,) by the share of `sample` (P,) below each, between the sample's own points.

    A value below or above the whole sample is moved by as much as the sample's end.
    """
    ordered = sample.sort().values
    ranks = torch.linspace(0, 1, len(ordered), dtype=ordered.dtype, device=ordered.device)
    places = torch.searchsorted(ordered, values.contiguous()).clamp(1, max(1, len(ordered) - 1))
    before, after = ordered[places - 1], ordered[places.clamp_max(len(ordered) - 1)]
    part = ((values - before) / (after - before).clamp_min(1e-12)).clamp(0, 1)
    share = ranks[places - 1] + part * (ranks[places.clamp_max(len(ordered) - 1)] - ranks[places - 1])
    beyond = values - values.clamp(ordered[0], ordered[-1])
    return torch.quantile(other, share) + beyond


class InputModule(nn.Module):
    """Sees every network input (N,C,H,W) in 0..value_range ahead of the network, and returns it unchanged."""

    #: names of the residual blocks that images of the lowest image factor skip
    skipped: tuple[str, ...] = ()

    def thresholds(self) -> tuple[float, float] | None:
        """The gradients below and above which an image loses and gains a bit; None where images do not differ so."""
        return None

    def follow_size(self, patches: Tensor, tiles: Tensor) -> None:
        """Moves the thresholds from images of one size to those of another, of which the same share is to lie below each.

        `patches` (P,) and `tiles` (Q,) are the gradients of either. The larger an image, the less gradients spread.
        """

    def is_calibrated(self) -> bool:
        """Whether it has seen the calibration images that it needs."""
        return True


class ImageContent(InputModule):
    """Returns the network input (N,C,H,W) in 0..value_range unchanged, measured for the quantizers of that forward."""

    def __init__(self, value_range: float = 255.0) -> None:
        super().__init__()
        self.value_range = value_range

    def forward(self, image: Tensor) -> Tensor:
        set_content(Content(*image_gradient(image, self.value_range)))
        return image

"""What an image looks like, measured once per forward and read by every quantizer of that forward."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Content", "ImageContent", "InputModule", "current_content", "image_gradient", "set_content"]

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
    # [-1, 0, 1] by [1, 2, 1], made where the image is: a copy from the CPU would wait for the device
    slope = torch.arange(-1, 2, dtype=grey.dtype, device=grey.device)
    sobel = (2 - slope.abs())[:, None] * slope / 8
    gradients = F.conv2d(F.pad(grey, (1, 1, 1, 1), mode="replicate"), torch.stack([sobel, sobel.T])[:, None])
    gradient_xy = gradients.abs().mean((2, 3)) * 1000
    return gradient_xy.mean(1), gradient_xy


class InputModule(nn.Module):
    """Sees every network input (N,C,H,W) in 0..value_range ahead of the network, and returns it unchanged."""

    def thresholds(self) -> tuple[float, float] | None:
        """The gradients below and above which an image loses and gains a bit; None where images are not told apart so."""
        return None

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

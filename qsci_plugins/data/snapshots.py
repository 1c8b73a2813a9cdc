"""Video snapshot compressive imaging: how T frames become one coded measurement (CACTI; EfficientSCI, eq. 1).

All functions take numpy arrays and torch tensors alike; time, height and width are the last three axes of frames and masks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["SensorNoise", "bayer_mosaic", "mask_sum", "measure", "mixed_masks", "random_mask", "shifting_mask"]

Array = TypeVar("Array", np.ndarray, "Tensor")


def measure(frames: Array, mask: Array) -> Array:
    """y = sum over t of mask_t * frame_t: (...,H,W) of frames (...,T,H,W) and masks (...,T,H,W), in the frames' unit.

    Colour frames (...,3,T,H,W), one axis more than the mask has, are seen through a Bayer filter first. Raises ValueError
    where the shapes do not fit.
    """
    if frames.ndim == mask.ndim + 1:
        frames = bayer_mosaic(frames)
    if frames.shape != mask.shape:
        raise ValueError(f"frames {tuple(frames.shape)} and masks {tuple(mask.shape)} are not of one size")
    return (frames * mask).sum(-3)


def mask_sum(mask: Array) -> Array:
    """How often each pixel is open: (...,H,W) of masks (...,T,H,W), 1 instead of 0 as published, so that it divides."""
    total = mask.sum(-3)
    return total + (total == 0)


def bayer_mosaic(frames: Array) -> Array:
    """What an RGGB sensor sees of RGB frames (...,3,T,H,W): (...,T,H,W), one colour at each pixel."""
    if frames.ndim < 4 or frames.shape[-4] != 3:
        raise ValueError(f"colour frames are (...,3,T,H,W), not {tuple(frames.shape)}")
    red, green, blue = (frames[..., channel, :, :, :] for channel in range(3))
    # green everywhere, then red at even rows and columns, blue at odd ones
    mosaic: Any = green + 0
    mosaic[..., ::2, ::2] = red[..., ::2, ::2]
    mosaic[..., 1::2, 1::2] = blue[..., 1::2, 1::2]
    return mosaic


@dataclass(frozen=True)
class SensorNoise:
    """What a camera adds to a measurement whose frames are in 0..1.

    `photons` is how many a frame's full brightness brings to a pixel (Poisson noise; None for none) and `gaussian` the
    standard deviation of the read-out, in the unit of a frame's full brightness.
    """

    photons: float | None = None
    gaussian: float = 0.0

    def __post_init__(self) -> None:
        if self.gaussian < 0 or (self.photons is not None and self.photons <= 0):
            raise ValueError(f"noise is gaussian >= 0 and photons > 0, not {self.gaussian} and {self.photons}")

    def add(self, measurement: np.ndarray, seed: int | tuple[int, ...]) -> np.ndarray:
        """The measurement as read out, float32 of the same shape; the same noise for the same seed."""
        generator = np.random.default_rng(seed)
        noisy = measurement.astype(np.float64)
        if self.photons is not None:
            noisy = generator.poisson(np.maximum(noisy, 0) * self.photons) / self.photons
        if self.gaussian:
            noisy = noisy + self.gaussian * generator.standard_normal(noisy.shape)
        return noisy.astype(np.float32)


def random_mask(frames: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    """A coded aperture, each pixel open in half of the frames by chance: float32 zeros and ones (T,H,W)."""
    return np.random.default_rng(seed).integers(0, 2, (frames, height, width)).astype(np.float32)


def shifting_mask(frames: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    """A coded aperture that moves right by one pixel from frame to frame, as that of a CACTI camera does (Llull et al.,
    Optics Express 2013): each pixel of the aperture open by chance, float32 zeros and ones (T,H,W).
    """
    aperture = random_mask(1, height, width + frames - 1, seed)[0]
    return np.stack([aperture[:, left : left + width] for left in reversed(range(frames))])


def mixed_masks(frames: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    """Masks of every kind, to train a network that knows none by heart: four drawn anew for each frame, then apertures that
    move right, left, down and up by one pixel from frame to frame; float32 zeros and ones (8,T,H,W).
    """
    drawn = [random_mask(frames, height, width, 8 * seed + number) for number in range(4)]
    across = [shifting_mask(frames, height, width, 8 * seed + number) for number in (4, 5)]
    along = [shifting_mask(frames, width, height, 8 * seed + number).transpose(0, 2, 1) for number in (6, 7)]
    return np.stack([*drawn, across[0], across[1][:, :, ::-1], along[0], along[1][:, ::-1]])

"""Alpha while a picture is enlarged: colours under it that no edge can pick up, and alpha itself by a filter."""

from __future__ import annotations

import numpy as np
from PIL import Image

__all__ = ["enlarged_alpha", "filled"]


def filled(rgb: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """RGB (H,W,3) with a colour of the surroundings where alpha (H,W) is 0; other pixels stay what they are.

    What a file holds under full transparency is arbitrary, mostly black, and would reach visible pixels through the
    network. Each such pixel gets the mean, by alpha, of the smallest aligned square of 2^n pixels that shows anything.
    """
    hidden = alpha == 0
    if not hidden.any() or hidden.all():
        return rgb
    weight = alpha.astype(np.float32)
    means = _means(rgb.astype(np.float32), weight)
    return np.where(hidden[..., None], np.rint(means).astype(rgb.dtype), rgb)


def _means(colours: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The colours (H,W,3) where the weight (H,W) is above 0, elsewhere those of half the size, and so on."""
    if weight.all():
        return colours
    height, width = weight.shape
    pad = ((0, height % 2), (0, width % 2))
    heavy = np.pad(weight, pad)
    total = _sums(heavy)
    weighted = _sums(np.pad(colours * weight[..., None], (*pad, (0, 0))))
    coarse = _means(weighted / np.where(total > 0, total, 1)[..., None], total / 4)
    fine = coarse.repeat(2, 0).repeat(2, 1)[:height, :width]
    return np.where((weight > 0)[..., None], colours, fine)


def _sums(values: np.ndarray) -> np.ndarray:
    """Sums over squares of 2x2."""
    rows = values[::2] + values[1::2]
    sums: np.ndarray = rows[:, ::2] + rows[:, 1::2]
    return sums


def enlarged_alpha(alpha: np.ndarray, scale: int) -> np.ndarray:
    """Bicubic, (scale*H,scale*W) of the same type."""
    size = (scale * alpha.shape[1], scale * alpha.shape[0])
    if alpha.dtype == np.uint8:
        return np.asarray(Image.fromarray(alpha).resize(size, Image.Resampling.BICUBIC))
    floats = np.asarray(Image.fromarray(alpha.astype(np.float32)).resize(size, Image.Resampling.BICUBIC))
    return np.rint(np.clip(floats, 0, 65535)).astype(np.uint16)

"""The first guess of a video from its snapshot measurement, with which each network begins.

Both look at each pixel alone, so that a Bayer mosaic needs no splitting into its four colours.
"""

from __future__ import annotations

from torch import Tensor

__all__ = ["mean_plus_masked", "projected"]


def mean_plus_masked(measurement: Tensor, mask: Tensor, mask_sum: Tensor) -> Tensor:
    """EfficientSCI's: y/s + mask * y/s as (N,1,T,H,W), for y and s = mask_sum (N,H,W), mask (N,T,H,W).

    `mask_sum` must hold no zeros.
    """
    mean = (measurement / mask_sum).unsqueeze(1)
    return (mean + mask * mean).unsqueeze(1)


def projected(measurement: Tensor, mask: Tensor, mask_sum: Tensor) -> Tensor:
    """STFormer's: x + mask * (y - sum(mask * x))/s with x = mask * y, shapes as in `mean_plus_masked`.

    For a mask of zeros and ones this is mask * y/s.
    """
    video = mask * measurement.unsqueeze(1)
    missing = (measurement - (mask * video).sum(dim=1)) / mask_sum
    return (video + mask * missing.unsqueeze(1)).unsqueeze(1)

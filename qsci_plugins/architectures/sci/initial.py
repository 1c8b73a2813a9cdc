"""The first guesses of a video from its snapshot measurement, with which the networks here begin."""

from __future__ import annotations

from torch import Tensor

__all__ = ["mean_and_masked"]


def mean_and_masked(measurement: Tensor, mask: Tensor, mask_sum: Tensor) -> tuple[Tensor, Tensor]:
    """y/sum(mask) as (N,1,H,W), and mask * y/sum(mask) as (N,T,H,W), for y and sum(mask) (N,H,W), mask (N,T,H,W).

    `mask_sum` must hold no zeros. Both look at each pixel alone, so that a Bayer mosaic needs no splitting into its
    four colours.
    """
    mean = (measurement / mask_sum).unsqueeze(1)
    return mean, mask * mean

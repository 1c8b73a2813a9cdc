"""What a frame's full brightness is in a measurement, which files seldom say."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from qsci_plugins.data.snapshots import mask_sum

__all__ = ["MARGIN", "White", "brightest", "white_level"]

#: a measurement may be this much brighter than its mask lets through: sensor noise
MARGIN = 1.1
#: full ranges of 1, 8, 10, 12, 14 and 16 bits
_RANGES = (1.0, 255.0, 1023.0, 4095.0, 16383.0, 65535.0)
#: of the convention's level, what the brightest pixels of a scene reach at least
_DIMMEST = 0.35
#: and no more than this, with noise and where fewer frames are open than usual
_BRIGHTEST = 1.5
#: floats below even this are of another unit
_DARK = 0.05
#: an estimate this near to a known level is that one
_NEAR = (0.88, 1.1)
#: of measurements scaled to 1
_NORMALISED = (0.98, 1.001)


@dataclass(frozen=True)
class White:
    """`level`: full brightness of one frame; `reason` in words; `doubt`: what makes it implausible, if anything."""

    level: float
    reason: str
    doubt: str = ""

    def sentence(self, where: str) -> str:
        """One line for the user."""
        doubt = f"; implausible: {self.doubt}" if self.doubt else ""
        way_out = "" if self.reason == "given" and not doubt else "; --white VALUE overrides"
        return f"{where}: full brightness is {self.level:g} ({self.reason}){doubt}{way_out}"


def brightest(measurements: np.ndarray, mask: np.ndarray) -> float:
    """The mean of the open frames, measurement / mask sum, that 99.9 % of the pixels stay below; (M,H,W), (T,H,W).

    Pixels that are open less than half as often as most say little: there noise is divided by little.
    """
    total = mask.sum(0)
    open_pixels = total > 0
    if open_pixels.any():
        open_pixels &= total >= np.median(total[open_pixels]) / 2
    return float(np.percentile((measurements / mask_sum(mask))[:, open_pixels], 99.9)) if open_pixels.any() else 0.0


def white_level(
    measurements: np.ndarray,
    dtype: np.dtype,
    mask: np.ndarray,
    given: float | None = None,
    frames_level: float | None = None,
) -> White:
    """Of measurements (M,H,W) that were stored as `dtype`, masked sums through (T,H,W).

    `given` by the user, else `frames_level` of the frames beside it if they fit, else the convention of published files
    (see `_convention`) where measurement / mask sum reaches a plausible part of it, else what that reaches itself: the
    brightest pixels are taken for white, or for a known level where they come near. Raises ValueError for more than
    16-bit frames through this mask can give.
    """
    largest, opening = float(measurements.max()), float(mask_sum(mask).max())
    estimate = brightest(measurements, mask)
    if given is not None:
        share = estimate / given
        odd = estimate > 0 and not _DARK <= share <= _BRIGHTEST
        doubt = f"the brightest pixels would have {share:.3g} of it" if odd else ""
        return White(given, "given", doubt)
    if frames_level is not None and largest <= frames_level * opening * MARGIN:
        return White(frames_level, "that of the frames in the file")
    if estimate <= 0:
        return White(1.0, "nothing shines in it", "the measurement is black")
    if largest > _RANGES[-1] * opening * MARGIN:
        raise ValueError(f"up to {largest:g}")
    level = _convention(largest, opening, dtype, len(mask))
    share = 0.0 if level is None else estimate / level
    if level is not None and _DIMMEST <= share <= _BRIGHTEST:
        return White(level, "the usual level of such values")
    normalised = _NORMALISED[0] <= largest <= _NORMALISED[1]
    if level is not None and dtype.kind == "f" and _DARK <= share < _DIMMEST and not normalised:
        return White(level, "the usual level of such values", f"the brightest pixels have {share:.2g} of it")
    known = _nearest(estimate, (*_RANGES, *(2 * full / len(mask) for full in _RANGES)))
    reason = "estimated from measurement / mask sum"
    return White(
        estimate if known is None else known, reason, "" if known else "the brightest pixels are taken for white"
    )


def _convention(largest: float, opening: float, dtype: np.dtype, frames: int) -> float | None:
    """1, 255 or 65535, the least that explains the values; of 8-bit and 16-bit readings of a real camera 2/T of the full
    range, as published. None where nothing does."""
    if dtype == np.uint8:
        return 255.0 * 2 / frames
    if dtype == np.uint16 and largest > 255 * opening * MARGIN:
        return 65535.0 * 2 / frames
    return next((level for level in (1.0, 255.0, 65535.0) if largest <= level * opening * MARGIN), None)


def _nearest(estimate: float, levels: Iterable[float]) -> float | None:
    near = [level for level in levels if _NEAR[0] <= estimate / level <= _NEAR[1]]
    return min(near, key=lambda level: abs(np.log(estimate / level)), default=None)

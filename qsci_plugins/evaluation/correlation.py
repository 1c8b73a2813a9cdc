"""Whether two measures rise together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["pearson", "spearman"]


def pearson(x: Sequence[float], y: Sequence[float]) -> float | None:
    """The linear correlation in -1..1; None for fewer than two pairs and where one of them never changes."""
    first, second = (np.asarray(values, dtype=np.float64) for values in (x, y))
    if len(first) < 2 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return float(np.corrcoef(first, second)[0, 1])


def spearman(x: Sequence[float], y: Sequence[float]) -> float | None:
    """The correlation of the ranks, equal values sharing their mean rank; None as `pearson`."""
    return pearson(_ranks(x), _ranks(y))


def _ranks(values: Sequence[float]) -> list[float]:
    _, places, counts = np.unique(np.asarray(values, dtype=np.float64), return_inverse=True, return_counts=True)
    last = counts.cumsum()
    ranks: list[float] = ((last - (counts - 1) / 2)[places]).tolist()
    return ranks

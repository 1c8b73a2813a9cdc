"""A bench as a picture: milliseconds of a tile against PSNR, one point for each form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from qsci_plugins.report.scatter import Point, scatter

__all__ = ["bench_picture"]


def bench_picture(tables: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """uint8 (H,W,3) of what `bench` returns; quality is the mean PSNR-Y over the sets that were measured."""
    points = []
    for table in tables:
        for row in table["rows"]:
            quality = list(row["psnr_y"].values())
            title = row["title"] if len(tables) == 1 else f"{table['model']}: {row['title']}"
            points.append(Point(title, row["median_ms"], sum(quality) / len(quality)))
    return scatter(points, "ms of one tile, median", "PSNR-Y, dB")

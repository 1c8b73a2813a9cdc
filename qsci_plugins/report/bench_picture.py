"""A bench as a picture: milliseconds of a tile against PSNR, one point for each form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from qsci_plugins.report.scatter import Point, scatter
from qsci_plugins.report.summary import bench_quality

__all__ = ["bench_picture"]


def bench_picture(tables: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """uint8 (H,W,3) of what `bench` returns; quality is the mean PSNR (of images: of luma) over the sets."""
    points = []
    images = True
    for table in tables:
        for row in table["rows"]:
            if "failed" in row:
                continue
            quality = list(bench_quality(row).values())
            title = row["title"] if len(tables) == 1 else f"{table['model']}: {row['title']}"
            points.append(Point(title, row["median_ms"], sum(quality) / len(quality)))
            images &= "psnr_y" in row
    return scatter(points, "ms of one tile, median", "PSNR-Y, dB" if images else "PSNR, dB")

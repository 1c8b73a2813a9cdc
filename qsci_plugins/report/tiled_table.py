"""`qsci bench --tiled` for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qsci_plugins.report.summary import table

__all__ = ["tiled_table"]


def tiled_table(bench: Mapping[str, Any]) -> str:
    """One model's times for a large image in tiles, under a title that says what was timed."""
    height, width = bench["size"]
    title = f"{bench['model']}: one {width}x{height} image, {bench['threads']} threads, {bench['repeats']} runs"
    lines = []
    for row in bench["rows"]:
        tiles = f"{row['tiles']} of {row['tile'][1]}x{row['tile'][0]}"
        milliseconds = [f"{row[key]:.0f}" for key in ("median_ms", "fast_ms", "slowest_ms")]
        peak = "" if row["peak_mib"] is None else f"{row['peak_mib']:.0f}"
        lines.append([row["title"], tiles, f"{row['computed']:.3f}", *milliseconds, f"{row['ratio']:.3f}", peak])
    header = ["form", "tiles", "pixels", "median ms", "fastest fifth", "slowest", "of one piece", "peak MiB"]
    return f"{title}\n\n{table(header, lines)}"

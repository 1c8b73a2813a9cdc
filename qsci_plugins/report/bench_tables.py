"""What `qsci bench` and `qsci cost` print: times and memory of forms side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qsci_plugins.report.summary import latency_table, table

__all__ = ["bench_table", "cost_table", "tiled_table"]


def bench_table(bench: Mapping[str, Any]) -> str:
    """One model's latency table under a title that says what was timed."""
    height, width = bench["tile"]
    frames = f" of {bench['frames']} frames" if bench.get("frames") else ""
    runs = f"{bench['threads']} threads, {bench['repeats']} runs"
    title = f"{bench['model']}: one {width}x{height} tile{frames}, {runs}"
    return f"{title}\n\n{latency_table(bench['rows'])}"


_TIMED = {"training": "training step", "evaluation": "evaluation", "fine_tuning": "fine-tuning step"}


def cost_table(cost: Mapping[str, Any]) -> str:
    """Ratios to float by scheme and backend, with the milliseconds or MiB of both."""
    rows = []
    for row in cost["rows"]:
        cells = [
            f"{row[key]['ratio']:.2f} ({row[key]['quantized_ms']:.0f} / {row[key]['float_ms']:.0f} ms)"
            for key in _TIMED
        ]
        memory = row["memory"]
        cells.append(
            f"{memory['ratio']:.2f} ({memory['quantized_mib']:.0f} / {memory['float_mib']:.0f} MiB)" if memory else "-"
        )
        rows.append([f"{row['scheme']} in {row['backend']}", *cells])
    network, device = cost["network"], cost.get("device", "cpu")
    on = "" if device == "cpu" else f", {device}"
    title = (
        f"{network['architecture']} x{network['scale']}, {network['blocks']} blocks of {network['width']} channels, "
        f"{cost['threads']} threads{on}, {cost['rows'][0]['form']} form: quantized / float"
    )
    return f"{title}\n\n{table(['scheme', *_TIMED.values(), 'fine-tuning memory'], rows)}"


def tiled_table(bench: Mapping[str, Any]) -> str:
    """One model's times for a large image in tiles, under a title that says what was timed."""
    height, width = bench["size"]
    title = f"{bench['model']}: one {width}x{height} image, {bench['threads']} threads, {bench['repeats']} runs"
    lines = []
    for row in bench["rows"]:
        tiles = f"{row['tiles']} of {row['tile'][1]}x{row['tile'][0]}"
        if skipping := row.get("skipping"):
            tiles += f", {skipping} skip blocks"
        milliseconds = [f"{row[key]:.0f}" for key in ("median_ms", "fast_ms", "slowest_ms")]
        peak = "" if row["peak_mib"] is None else f"{row['peak_mib']:.0f}"
        lines.append([row["title"], tiles, f"{row['computed']:.3f}", *milliseconds, f"{row['ratio']:.3f}", peak])
    header = ["form", "tiles", "pixels", "median ms", "fastest fifth", "slowest", "of one piece", "peak MiB"]
    return f"{title}\n\n{table(header, lines)}"

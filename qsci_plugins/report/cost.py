"""What quantization costs in torch, as a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qsci_plugins.report.summary import table

__all__ = ["cost_table"]

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
    network = cost["network"]
    title = (
        f"{network['architecture']} x{network['scale']}, {network['blocks']} blocks of {network['width']} channels, "
        f"{cost['threads']} threads, {cost['rows'][0]['form']} form: quantized / float"
    )
    return f"{title}\n\n{table(['scheme', *_TIMED.values(), 'fine-tuning memory'], rows)}"

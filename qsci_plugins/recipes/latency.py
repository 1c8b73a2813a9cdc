"""The rows of a latency table."""

from __future__ import annotations

import os
from typing import Any

from qsci_plugins.openvino.latency import Latency
from qsci_plugins.recipes.failures import Failed

__all__ = ["failed_row", "latency_row", "usable_threads"]


def usable_threads() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def latency_row(name: str, title: str, latency: Latency) -> dict[str, Any]:
    """A row of a latency table."""
    return {
        "name": name,
        "title": title,
        "median_ms": round(latency.median_ms, 2),
        "fast_ms": round(latency.fast_ms, 2),
        "slowest_ms": round(latency.slowest_ms, 2),
    }


def failed_row(failed: Failed) -> dict[str, Any]:
    """A row that has a reason in `failed` and no numbers."""
    times = dict.fromkeys(("median_ms", "fast_ms", "slowest_ms"))
    return {"name": failed.name, "title": failed.title, **times, "failed": failed.reason}

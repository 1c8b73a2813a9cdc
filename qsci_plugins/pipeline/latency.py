"""The exported network timed beside what OpenVINO users have today."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from qsci_plugins.evaluation.baselines import Failed, PlainGraph, attempt, plain_graphs
from qsci_plugins.evaluation.latency import (
    failed_row,
    latency_row,
    open_exported,
    open_graph,
    runner,
    time_in_turns,
    usable_threads,
)
from qsci_plugins.openvino.precisions import runtime_precisions
from qsci_plugins.pipeline.task import Prepared, Task
from qsci_plugins.progress import Progress

__all__ = ["measure_latency"]

_REPEATS = 10


def measure_latency(task: Task, prepared: Prepared, folder: Path, progress: Progress) -> dict[str, Any]:
    """Milliseconds of one tile, interleaved in one process: OpenVINO fp32, bf16 (if any), NNCF's default INT8, ours.

    And in which precision ours really runs: how many nodes of each kind take and give what. What is not ours and fails
    keeps its row, which says why.
    """
    height, width = prepared.recipe.export.openvino.tile
    threads = usable_threads()
    compiled: dict[str, Any] = {}

    def opened(plain: PlainGraph | Failed) -> PlainGraph | Failed:
        if isinstance(plain, Failed):
            return plain

        def make() -> PlainGraph:
            model = open_graph(plain.graph, precision=plain.precision, threads=threads)
            runner(model, (height, width))()
            compiled[plain.name] = model
            return plain

        return attempt(plain.name, plain.title, make)

    with progress.stage("latency", 1) as advance:
        entries = [opened(plain) for plain in plain_graphs(lambda: task.float_graph(prepared), task.samples(prepared))]
        compiled["ours"] = open_exported(folder, threads)
        latencies = time_in_turns(compiled, (height, width), _REPEATS)
        rows = [
            failed_row(entry)
            if isinstance(entry, Failed)
            else latency_row(entry.name, entry.title, latencies[entry.name])
            for entry in entries
        ]
        rows.append(latency_row("ours", "ours", latencies["ours"]))
        advance(1)
    nodes = Counter((node.type, node.precision, node.output) for node in runtime_precisions(compiled["ours"]))
    precisions = [
        {"type": kind, "input": taken, "output": given, "count": count}
        for (kind, taken, given), count in nodes.most_common()
    ]
    return {
        "tile": [height, width],
        "threads": threads,
        "repeats": _REPEATS,
        "rows": rows,
        "precisions": precisions,
    }

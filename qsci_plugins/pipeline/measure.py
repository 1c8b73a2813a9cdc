"""Forms of a network measured: quality over sets, and one tile timed beside what OpenVINO users have today."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qsci_plugins.pipeline.task import Loaded, PieceResult, PieceSet, Prepared, Task
from qsci_plugins.progress import Progress

if TYPE_CHECKING:
    import openvino

    from qsci_plugins.evaluation.baselines import Sample

__all__ = ["is_untried", "means", "measure_forms", "measure_latency", "time_rows"]


def measure_forms(task: Task, forms: Mapping[str, Any], sets: Sequence[PieceSet], progress: Progress) -> dict[str, Any]:
    """By set and form the means over the pieces, what the form says about the set, and every piece under `pieces`.

    The numbers are `psnr` in dB (None where pictures are equal, as JSON has no infinity), `ssim` and `fab` (None where
    nobody knows), and the extras of `PieceResult`, of which those that are numbers have means too.
    """
    table: dict[str, Any] = {}
    for pieces in sets:
        table[pieces.name] = {}
        for name, form in forms.items():
            results = []
            with progress.stage(f"{pieces.name}: {name}", len(pieces.pieces)) as advance:
                for done, piece in enumerate(pieces.pieces, 1):
                    results.append(task.score(form, piece))
                    advance(done, f"{results[-1].psnr:.2f} dB")
            summary = form.summary() if form.summary else {}
            table[pieces.name][name] = {
                **means(results),
                **summary,
                "pieces": {result.name: _numbers(result) for result in results},
            }
    return table


def means(results: Sequence[PieceResult]) -> dict[str, Any]:
    """The means over pieces, as `measure` has them."""
    numbers: dict[str, Any] = {
        "psnr": _finite(_mean(result.psnr for result in results)),
        "ssim": _mean(result.ssim for result in results),
        "fab": _mean(result.fab for result in results),
    }
    for key in results[0].extras if results else ():
        values = [result.extras.get(key) for result in results]
        if all(isinstance(value, int | float) for value in values):
            numbers[key] = _mean(values)
    return numbers


def _numbers(result: PieceResult) -> dict[str, Any]:
    return {"psnr": _finite(result.psnr), "ssim": result.ssim, "fab": result.fab, **result.extras}


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None


def _finite(decibels: float | None) -> float | None:
    return None if decibels is None or math.isinf(decibels) else decibels


_REPEATS = 10


def measure_latency(task: Task, prepared: Prepared, folder: Path, progress: Progress) -> dict[str, Any]:
    """Milliseconds of one tile, interleaved in one process: OpenVINO fp32, bf16 (if any), NNCF's default INT8, ours.

    And in which precision ours really runs: every node, and how many of each kind take and give what. What is not ours and fails
    keeps its row, which says why. A network that is not of our stock is timed in a process of its own, in which a crash
    is one more failure.
    """
    with progress.stage("latency", 1) as advance:
        if is_untried(prepared):
            from qsci_plugins.pipeline.isolated import latency_isolated

            found = latency_isolated(task, prepared, folder)
        else:
            tile = prepared.recipe.export.openvino.tile
            found = time_rows(lambda: task.float_graph(prepared), task.samples(prepared), folder, tile)
        advance(1)
    return found


def is_untried(loaded: Loaded) -> bool:
    """Whether nobody knows if torch and OpenVINO survive converting this network: some crash, and our stock does not."""
    return loaded.network.task == "sr" and loaded.network.receptive_radius is None


def time_rows(
    convert: Callable[[], openvino.Model],
    samples: Sequence[Sample],
    folder: Path,
    tile: Sequence[int],
    failed: Mapping[str, str] | None = None,
    begin: Callable[[str], object] = lambda name: None,
) -> dict[str, Any]:
    """What `measure_latency` returns, measured in this process; `convert` makes the float graph.

    `failed`: reasons by name of rows that are not to be tried; `begin` is called with the name of each row before it is,
    and with "timing" before all are timed.
    """
    # a float training measures too, and needs no OpenVINO
    from qsci_plugins.evaluation.baselines import Failed, PlainGraph, attempt, plain_graph_makers
    from qsci_plugins.evaluation.latency import (
        failed_row,
        latency_row,
        open_exported,
        open_graph,
        runner,
        time_in_turns,
    )
    from qsci_plugins.machine import usable_threads
    from qsci_plugins.openvino.precisions import runtime_precisions

    height, width = tile
    threads = usable_threads()
    compiled: dict[str, Any] = {}
    entries: list[PlainGraph | Failed] = []

    def opened(make: Callable[[], PlainGraph]) -> PlainGraph:
        plain = make()
        model = open_graph(plain.graph, precision=plain.precision, threads=threads, exact=False)
        runner(model, (height, width))()
        compiled[plain.name] = model
        return plain

    for (name, title), make in plain_graph_makers(convert, lambda: samples).items():
        if name in (failed or {}):
            entries.append(Failed(name, title, (failed or {})[name]))
            continue
        begin(name)
        entries.append(attempt(name, title, partial(opened, make)))
    begin("ours")
    compiled["ours"] = open_exported(folder, threads)
    begin("timing")
    latencies = time_in_turns(compiled, (height, width), _REPEATS)
    rows = [
        failed_row(entry) if isinstance(entry, Failed) else latency_row(entry.name, entry.title, latencies[entry.name])
        for entry in entries
    ]
    rows.append(latency_row("ours", "ours", latencies["ours"]))
    executed = runtime_precisions(compiled["ours"])
    nodes = Counter((node.type, node.precision, node.output) for node in executed)
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
        "nodes": [
            {"name": node.name, "type": node.type, "input": node.precision, "output": node.output} for node in executed
        ],
    }

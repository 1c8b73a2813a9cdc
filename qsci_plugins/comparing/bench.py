"""Exported models beside what there is without this package: time, memory, size and PSNR, row by row, in one process."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from qsci_plugins.comparing.bench_rows import Bench, row_text
from qsci_plugins.comparing.contenders import Contender, Makers, exported_contenders, make_contender, plain_contenders
from qsci_plugins.comparing.processes import torch_threads
from qsci_plugins.comparing.settings import ROWS, BenchSettings
from qsci_plugins.comparing.subjects import recipe_of_run
from qsci_plugins.errors import UserError
from qsci_plugins.evaluation.latency import failed_row
from qsci_plugins.machine import usable_threads
from qsci_plugins.openvino.builtin import find_model_folder
from qsci_plugins.openvino.manifest import MANIFEST, load_manifest
from qsci_plugins.pipeline.metrics import read_metrics
from qsci_plugins.pipeline.output import METRICS_FILE, RECIPE_FILE
from qsci_plugins.pipeline.task import Task, task_named
from qsci_plugins.progress import Progress

__all__ = ["bench_here"]

#: rows that need no float network
_EXPORTED = {"ours", "skipping", "routed"}


def bench_here(
    model: Path,
    settings: BenchSettings,
    progress: Progress,
    begin: Callable[[dict[str, Any], dict[str, str]], object],
    step: Callable[[str | None, float | None], object] = lambda name, limit: None,
    complete: Callable[[dict[str, Any]], object] = lambda row: None,
    skip: Collection[str] = (),
) -> dict[str, Any]:
    """The table of `bench_isolated.bench_model`, made in this process, where nothing can be interrupted.

    `begin` is called with the table, before its first row, and the titles of its rows by name; `step` as `Bench.step`
    is; `complete` with each row; rows whose names are in `skip` are not made.
    """
    threads = settings.threads or usable_threads()
    folder = model if (model / MANIFEST).is_file() else find_model_folder(model)
    manifest = load_manifest(folder)
    task = task_named(manifest.task)
    names = settings.sets or (["builtin"] if settings.data is None else None)
    sets = task.sets([], manifest, settings.data, names)
    table: dict[str, Any] = {
        "model": str(model),
        "task": manifest.task,
        "tile": list(manifest.tile),
        "frames": manifest.frames,
        "threads": threads,
        "repeats": settings.repeats,
        "rows": [],
    }
    with TemporaryDirectory(prefix="qsci-bench-") as temporary, torch_threads(threads):
        makers = _chosen(model, settings.only, _makers(task, model, folder, Path(temporary), settings, progress))
        begin(table, dict(list(makers)))
        makers = {name: make for name, make in makers.items() if name[0] not in skip}
        bench = Bench(str(model), task, manifest, sets, threads, settings.repeats, settings.limit, progress, step)
        rows: dict[str, dict[str, Any]] = {}

        def is_complete(row: dict[str, Any]) -> None:
            rows[row["name"]] = row
            table["rows"] = [rows[name] for name, _ in makers if name in rows]
            progress.note(row_text(row))
            complete(row)

        contenders: list[Contender] = []
        with progress.stage(f"{model}: contenders", len(makers)) as advance:
            for done, (name, make) in enumerate(makers.items()):
                advance(done, name[1])
                start = time.perf_counter()
                begin_contender = partial(step, name[0], settings.limit)
                contender = make_contender(name, make, manifest.tile, settings.limit, begin_contender)
                step(None, None)
                if isinstance(contender, Contender):
                    contenders.append(contender)
                    progress.note(f"{name[1]}: ready in {time.perf_counter() - start:.1f} s")
                else:
                    is_complete(failed_row(contender))
                advance(done + 1, name[1])
        for row in bench.rows(contenders):
            is_complete(row)
    return table


def _makers(
    task: Task, model: Path, folder: Path, temporary: Path, settings: BenchSettings, progress: Progress
) -> Makers:
    """A model folder knows no float network, and has no rows but its own."""
    exported = exported_contenders(task, folder, settings.threads or usable_threads(), _export_seconds(model))
    wanted = set(ROWS if settings.only is None else settings.only)
    if not (model / RECIPE_FILE).is_file() or wanted <= _EXPORTED:
        return exported
    recipe = recipe_of_run(model)
    prepared = task.prepare(recipe.model_copy(update={"evaluate": [], "train": None}), None, progress)
    return {**plain_contenders(task, prepared, temporary, settings.threads or usable_threads()), **exported}


def _chosen(model: Path, only: Sequence[str] | None, makers: Makers) -> Makers:
    if only is None:
        return makers
    chosen = {name: make for name, make in makers.items() if name[0] in only}
    if not chosen:
        there = ", ".join(name for name, _ in makers)
        raise UserError(f"--only {' '.join(only)}: {model} has no such row here; it has {there}")
    return chosen


def _export_seconds(model: Path) -> float | None:
    """What the export took, where a run says so."""
    file = model / METRICS_FILE
    seconds: float | None = read_metrics(file)["seconds"].get("export") if file.is_file() else None
    return seconds

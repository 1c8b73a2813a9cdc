"""Exported models beside what there is without this package: time, memory, size and PSNR, row by row."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from qsci_plugins.comparing.bench_rows import Bench, row_text
from qsci_plugins.comparing.contenders import Contender, Makers, exported_contenders, make_contender, plain_contenders
from qsci_plugins.comparing.processes import torch_threads
from qsci_plugins.comparing.settings import ROWS, BenchSettings
from qsci_plugins.comparing.subjects import recipe_of_run
from qsci_plugins.errors import UserError
from qsci_plugins.evaluation.latency import failed_row, usable_threads
from qsci_plugins.openvino.builtin import find_model_folder
from qsci_plugins.openvino.manifest import MANIFEST, load_manifest
from qsci_plugins.pipeline.metrics import read_metrics
from qsci_plugins.pipeline.output import METRICS_FILE, RECIPE_FILE
from qsci_plugins.pipeline.task import Task, task_named
from qsci_plugins.progress import Progress

__all__ = ["bench_model"]

#: rows that need no float network
_EXPORTED = {"ours", "routed"}


def bench_model(
    model: Path,
    settings: BenchSettings,
    progress: Progress | None = None,
    begin: Callable[[dict[str, Any]], object] = lambda table: None,
) -> dict[str, Any]:
    """Latency of one tile, tiles per second, peak memory, size, seconds of export and PSNR of every form.

    `model` is the output of `qsci run`, whose float network gives the rows for torch, OpenVINO fp32, bf16 (where the CPU
    has it), NNCF's default INT8 and the scheme's static form at the recipe's placement, both calibrated on the recipe's
    patches or clips; or a model folder, which has its own rows alone. All forms take turns in one process. Of these other
    ways to run the network one that fails keeps its row, with the reason in `failed` and no numbers.

    `settings.only` names the rows that are made, of `settings.ROWS`. `settings.limit` is in seconds: a row whose making
    (conversion, quantization) or first inference takes longer has failed. One whose timed runs take longer in all has
    fewer, and one whose throughput would has none; `repeats` says how many runs were timed, and `cut` what is missing.
    Nothing is interrupted: what takes too long to make ends in its own time and is then left out of all that follows.
    Memory, PSNR and the reading of the recipe and its calibration images have no limit.

    `psnr` is by set, in dB (of images on Y); the sets are those of `data` (the standard ones; for video its scenes), of
    which `sets` names some; without either the built-in one. Every row is noted to `progress` when it is complete, and
    `begin` is given the table before its first row: after KeyboardInterrupt it has the complete ones. Raises UserError
    for a folder that is neither, for sets that are not there or do not suit the network, and for names of no row.
    """
    _check(settings)
    progress, threads = progress or Progress(), settings.threads or usable_threads()
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
    begin(table)
    with TemporaryDirectory(prefix="qsci-bench-") as temporary, torch_threads(threads):
        makers = _chosen(model, settings.only, _makers(task, model, folder, Path(temporary), settings, progress))
        bench = Bench(str(model), task, manifest, sets, threads, settings.repeats, settings.limit, progress)
        rows: dict[str, dict[str, Any]] = {}

        def complete(row: dict[str, Any]) -> None:
            rows[row["name"]] = row
            table["rows"] = [rows[name] for name, _ in makers if name in rows]
            progress.note(row_text(row))

        contenders: list[Contender] = []
        with progress.stage(f"{model}: contenders", len(makers)) as advance:
            for done, (name, make) in enumerate(makers.items()):
                advance(done, name[1])
                start = time.perf_counter()
                made = make_contender(name, make, manifest.tile, settings.limit)
                if isinstance(made, Contender):
                    contenders.append(made)
                    progress.note(f"{name[1]}: ready in {time.perf_counter() - start:.1f} s")
                else:
                    complete(failed_row(made))
                advance(done + 1, name[1])
        for row in bench.rows(contenders):
            complete(row)
    return table


def _check(settings: BenchSettings) -> None:
    for name in settings.only or ():
        if name not in ROWS:
            raise UserError(f"--only {name}: no row is called so; the rows are {', '.join(ROWS)}")
    if settings.limit is not None and not settings.limit > 0:
        raise UserError(f"--limit {settings.limit}: should be seconds above 0, or be left out")


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

"""Exported models beside what there is without this package: time, memory, size and PSNR, row by row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import openvino

from qsci_plugins.comparing.contenders import Contender, exported_contenders, plain_contenders
from qsci_plugins.comparing.processes import torch_threads
from qsci_plugins.comparing.settings import BenchSettings
from qsci_plugins.comparing.subjects import recipe_of_run
from qsci_plugins.evaluation.baselines import Failed
from qsci_plugins.evaluation.latency import (
    failed_row,
    latency_row,
    measure_throughput,
    time_in_turns,
    usable_threads,
)
from qsci_plugins.evaluation.memory import peak_memory
from qsci_plugins.openvino.builtin import find_model_folder
from qsci_plugins.openvino.manifest import MANIFEST, Manifest, load_manifest
from qsci_plugins.pipeline.measure import measure_forms
from qsci_plugins.pipeline.metrics import read_metrics
from qsci_plugins.pipeline.output import METRICS_FILE, RECIPE_FILE
from qsci_plugins.pipeline.task import Task, task_named
from qsci_plugins.progress import Progress

__all__ = ["bench_model"]

#: throughput is measured on so many times as many tiles as a model takes at a time; video's take long
_BURSTS = {"sr": 4, "sci": 1}


def bench_model(model: Path, settings: BenchSettings, progress: Progress | None = None) -> dict[str, Any]:
    """Latency of one tile, tiles per second, peak memory, size, seconds of export and PSNR of every form.

    `model` is the output of `qsci run`, whose float network gives the rows for torch, OpenVINO fp32, bf16 (where the CPU
    has it), NNCF's default INT8 and the scheme's static form at the recipe's placement, both calibrated on the recipe's
    patches or clips; or a model folder, which has its own rows alone. All forms take turns in one process. Of these other
    ways to run the network one that fails keeps its row, with the reason in `failed` and no numbers.

    `psnr` is by set, in dB (of images on Y); the sets are those of `data` (the standard ones; for video its scenes), of
    which `sets` names some; without either the built-in one. Raises UserError for a folder that is neither, and for sets
    that are not there or do not suit the network.
    """
    progress, threads = progress or Progress(), settings.threads or usable_threads()
    folder = model if (model / MANIFEST).is_file() else find_model_folder(model)
    manifest = load_manifest(folder)
    task = task_named(manifest.task)
    names = settings.sets or (["builtin"] if settings.data is None else None)
    sets = task.sets([], manifest, settings.data, names)
    with TemporaryDirectory(prefix="qsci-bench-") as temporary, torch_threads(threads):
        contenders = _contenders(task, model, folder, Path(temporary), threads, progress)
        rows = _Timing(model, manifest, threads, settings.repeats, progress).rows(contenders)
        forms = {entry.name: entry.form for entry in contenders if isinstance(entry, Contender)}
        quality = measure_forms(task, forms, sets, progress)
    for row in rows:
        if row["name"] in forms:
            row["psnr"] = {name: _rounded(quality[name][row["name"]]["psnr"]) for name in quality}
    return {
        "model": str(model),
        "task": manifest.task,
        "tile": list(manifest.tile),
        "frames": manifest.frames,
        "threads": threads,
        "repeats": settings.repeats,
        "rows": rows,
    }


def _contenders(
    task: Task, model: Path, folder: Path, temporary: Path, threads: int, progress: Progress
) -> list[Contender | Failed]:
    """A model folder knows no float network, and has no rows but its own."""
    exported = exported_contenders(task, folder, threads, _export_seconds(model))
    if not (model / RECIPE_FILE).is_file():
        return [*exported]
    recipe = recipe_of_run(model)
    prepared = task.prepare(recipe.model_copy(update={"evaluate": [], "train": None}), None, progress)
    with progress.stage(f"{model}: OpenVINO and NNCF without us", 1) as advance:
        plain = plain_contenders(task, prepared, temporary, threads)
        advance(1)
    return [*plain, *exported]


def _export_seconds(model: Path) -> float | None:
    """What the export took, where a run says so."""
    file = model / METRICS_FILE
    seconds: float | None = read_metrics(file)["seconds"].get("export") if file.is_file() else None
    return seconds


@dataclass(frozen=True)
class _Timing:
    """How the contenders of a model are timed."""

    model: Path
    manifest: Manifest
    threads: int
    repeats: int
    progress: Progress

    def rows(self, entries: Sequence[Contender | Failed]) -> list[dict[str, Any]]:
        """A row per contender, all timed in turns in this process; memory is that of a new process for each.

        What failed has a reason and no numbers.
        """
        tile, threads, progress = self.manifest.tile, self.threads, self.progress
        contenders = [entry for entry in entries if isinstance(entry, Contender)]
        with progress.stage(f"{self.model}: latency", 1) as advance:
            latencies = time_in_turns({entry.name: entry.tile for entry in contenders}, tile, self.repeats)
            advance(1)
        with progress.stage(f"{self.model}: throughput", 1) as advance:
            compiled: dict[str, openvino.CompiledModel] = {
                entry.name: graph for entry in contenders if (graph := entry.throughput(threads)) is not None
            }
            rates = measure_throughput(compiled, tile, bursts=_BURSTS[self.manifest.task])
            advance(1)
        rows = {}
        with progress.stage(f"{self.model}: memory", len(contenders)) as advance:
            for done, entry in enumerate(contenders, 1):
                memory = None
                if entry.graph is not None:
                    memory = peak_memory(entry.graph, entry.weights, tile, precision=entry.precision, threads=threads)
                rows[entry.name] = {
                    **latency_row(entry.name, entry.title, latencies[entry.name]),
                    "tiles_per_second": _rounded(rates.get(entry.name), 2),
                    "peak_mib": _rounded(memory, 1),
                    "file_bytes": entry.file_bytes,
                    "export_seconds": _rounded(entry.seconds, 2),
                }
                advance(done)
        return [failed_row(entry) if isinstance(entry, Failed) else rows[entry.name] for entry in entries]


def _rounded(value: float | None, digits: int = 4) -> float | None:
    return None if value is None else round(value, digits)

"""What `qsci bench` measures of every way to run a network but its quality: time, throughput, memory, size."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openvino
import torch

from qsci_plugins.openvino.footprint import peak_memory
from qsci_plugins.openvino.latency import measure, measure_throughput
from qsci_plugins.openvino.manifest import Manifest
from qsci_plugins.progress import Progress
from qsci_plugins.recipes.contenders import Contender
from qsci_plugins.recipes.failures import Failed
from qsci_plugins.recipes.latency import failed_row, latency_row
from qsci_plugins.recipes.outputs import METRICS_FILE, RECIPE_FILE
from qsci_plugins.recipes.reading import AnyRecipe, read_recipe

__all__ = ["Bench", "torch_threads"]


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Has torch compute with so many threads, and afterwards with as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True)
class Bench:
    """One model to measure: `model` as it was named, its model folder with the manifest, and where baselines may go."""

    model: Path
    folder: Path
    manifest: Manifest
    temporary: Path
    threads: int
    repeats: int
    progress: Progress

    def recipe(self) -> AnyRecipe | None:
        """That of a run; None for a model folder, which knows no float network."""
        file = self.model / RECIPE_FILE
        return read_recipe(file) if file.is_file() else None

    def export_seconds(self) -> float | None:
        """What the export took, where a run tells."""
        file = self.model / METRICS_FILE
        if not file.is_file():
            return None
        told = json.loads(file.read_text(encoding="utf-8")).get("seconds", {}).get("export")
        return None if told is None else float(told)

    def rows(self, forms: Sequence[Contender[Any] | Failed], bursts: int = 4) -> list[dict[str, Any]]:
        """One row per form, all timed in turns in this process; memory is that of a new process for each.

        One that failed has a reason and no numbers. Throughput is measured on `bursts` times as many tiles as a contender
        takes at a time.
        """
        tile, threads, progress = self.manifest.tile, self.threads, self.progress
        contenders = [one for one in forms if isinstance(one, Contender)]
        with progress.stage(f"{self.model}: latency", 1) as advance:
            latencies = measure({one.name: one.tile for one in contenders}, tile, self.repeats)
            advance(1)
        with progress.stage(f"{self.model}: throughput", 1) as advance:
            compiled: dict[str, openvino.CompiledModel] = {
                one.name: graph for one in contenders if (graph := one.throughput(threads)) is not None
            }
            rates = measure_throughput(compiled, tile, bursts=bursts)
            advance(1)
        rows = {}
        with progress.stage(f"{self.model}: memory", len(contenders)) as advance:
            for done, one in enumerate(contenders, 1):
                memory = None
                if one.graph is not None:
                    memory = peak_memory(one.graph, one.weights, tile, precision=one.precision, threads=threads)
                rows[one.name] = {
                    **latency_row(one.name, one.title, latencies[one.name]),
                    "tiles_per_second": None if one.name not in rates else round(rates[one.name], 2),
                    "peak_mib": None if memory is None else round(memory, 1),
                    "file_bytes": one.file_bytes,
                    "export_seconds": None if one.seconds is None else round(one.seconds, 2),
                }
                advance(done)
        return [failed_row(one) if isinstance(one, Failed) else rows[one.name] for one in forms]

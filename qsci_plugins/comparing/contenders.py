"""Every way to run one network that `qsci bench` compares, each as a file on disk, a tile to time and pictures to score."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import openvino
import torch

from qsci_plugins.evaluation.baselines import Failed, attempt, quiet
from qsci_plugins.evaluation.latency import (
    failed_row,
    latency_row,
    measure,
    measure_throughput,
    open_exported,
    open_graph,
    runner,
)
from qsci_plugins.evaluation.memory import peak_memory
from qsci_plugins.openvino.manifest import Manifest, load_manifest
from qsci_plugins.openvino.precisions import Precision
from qsci_plugins.pipeline.output import METRICS_FILE, RECIPE_FILE
from qsci_plugins.pipeline.run import Quantizable, backend
from qsci_plugins.progress import Progress
from qsci_plugins.recipes.reading import AnyRecipe, read_recipe
from qsci_plugins.schemes.registry import make_scheme
from qsci_plugins.schemes.scheme import QuantizedNetwork

__all__ = [
    "STATIC",
    "TORCH",
    "Bench",
    "Contender",
    "attempt_contender",
    "exported_graph",
    "static_network",
    "static_scheme",
    "torch_threads",
]

Way = TypeVar("Way")

#: name and title of the row that is ours without anything that adapts
STATIC = ("static_int8", "static INT8, same placement")
TORCH = ("torch", "torch eager")


@dataclass(frozen=True)
class Contender(Generic[Way]):
    """A row of the bench: what runs one tile, IR files (none for torch), and `way`, which makes pictures to score.

    `seconds` is what making the graph of the network in torch took, where that is known.
    """

    name: str
    title: str
    tile: Callable[[], object] | openvino.CompiledModel
    way: Way
    graph: Path | None = None
    weights: Path | None = None
    precision: Precision = "f32"
    files: list[Path] = field(default_factory=list)
    seconds: float | None = None

    @property
    def file_bytes(self) -> int | None:
        """What the model takes on disk; None for torch."""
        return sum(file.stat().st_size for file in self.files) if self.files else None

    def throughput(self, threads: int) -> openvino.CompiledModel | None:
        """Compiled for throughput; None for torch."""
        if self.graph is None:
            return None
        return open_graph(self.graph, self.weights, precision=self.precision, threads=threads, hint="THROUGHPUT")


def attempt_contender(
    name: str, title: str, make: Callable[[], Contender[Way]], tile: tuple[int, int]
) -> Contender[Way] | Failed:
    """A contender that has run a tile, or why there is none; for what is not ours, as ours must not fail."""

    def make_and_run() -> Contender[Way]:
        made = make()
        run = runner(made.tile, tile) if isinstance(made.tile, openvino.CompiledModel) else made.tile
        run()
        return made

    return attempt(name, title, make_and_run)


def exported_graph(
    name: str,
    title: str,
    folder: Path,
    way: Way,
    threads: int,
    precision: Precision | None = None,
    seconds: float | None = None,
) -> Contender[Way]:
    """The graph of a model folder's middle route; `precision` of what is not quantized, else what the manifest says."""
    manifest = load_manifest(folder)
    graph, weights = folder / manifest.route(0).graph.name, folder / manifest.weights.name
    precision = precision or manifest.precision
    compiled = open_exported(folder, threads, precision)
    # the constants once: further names of theirs take no room
    files = [folder / entry.name for entry in (manifest.weights, *manifest.graphs())]
    return Contender(name, title, compiled, way, graph, weights, precision, files, seconds)


def static_scheme(scheme: dict[str, Any]) -> dict[str, Any]:
    """W8A8 of a scheme's kind: nothing adapts or shifts, and no weight is reconstructed."""
    eight = {"weight_bits": 8, "activation_bits": 8}
    if scheme["name"] == "qsci":
        return {"name": "qsci", **eight, "shift": False, "attention": scheme.get("attention", ("*",))}
    still = {"image_mapping": False, "layer_mapping": False, "reconstruct_weights": False, "bias_correction": False}
    return {"name": "adabm", **eight, **still}


def static_network(prepared: Quantizable, door: str) -> QuantizedNetwork:
    """The float network at the recipe's placement with `static_scheme`, through a backend."""
    network = prepared.network
    scheme = make_scheme(static_scheme(prepared.recipe.scheme))
    with quiet():
        quantized: QuantizedNetwork = backend(door).quantize(
            network.module, scheme, prepared.placement, prepared.batches, network.value_range
        )
    return quantized


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

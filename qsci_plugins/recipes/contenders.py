"""Every way to run one network that `qsci bench` compares, each as a file on disk, a tile to time and pictures to score."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import openvino

from qsci_plugins.openvino.latency import open_exported, open_graph, runner
from qsci_plugins.openvino.manifest import load_manifest
from qsci_plugins.openvino.precisions import Precision
from qsci_plugins.recipes.baselines import quiet
from qsci_plugins.recipes.failures import Failed, attempt
from qsci_plugins.recipes.steps import Quantizable, backend
from qsci_plugins.schemes.registry import make_scheme
from qsci_plugins.schemes.scheme import QuantizedNetwork

__all__ = ["STATIC", "TORCH", "Contender", "attempt_contender", "exported_graph", "static_network", "static_scheme"]

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
    files = [folder / entry.name for entry in manifest.files()]
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

"""The numbers of a bench: contenders timed in turns, then row by row what each takes and how good it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import openvino

from qsci_plugins.comparing.contenders import Contender
from qsci_plugins.evaluation.latency import Latency, latency_row, measure_throughput, time_in_turns
from qsci_plugins.evaluation.memory import peak_memory
from qsci_plugins.openvino.manifest import Manifest
from qsci_plugins.pipeline.measure import measure_forms
from qsci_plugins.pipeline.task import PieceSet, Task
from qsci_plugins.progress import Progress

__all__ = ["Bench", "row_text"]

#: throughput is measured on so many times as many tiles as a model takes at a time; video's take long
_BURSTS = {"sr": 4, "sci": 1}
_WARM_UP, _ROUNDS = 3, 3


@dataclass(frozen=True)
class Bench:
    """How the contenders of a model are measured; `limit` as `bench_isolated.bench_model` has it.

    `step` is called with the name of the contender that is at work next and the seconds that this may take, and with
    None after.
    """

    title: str
    task: Task
    manifest: Manifest
    sets: Sequence[PieceSet]
    threads: int
    repeats: int
    limit: float | None
    progress: Progress
    step: Callable[[str | None, float | None], object] = lambda name, limit: None

    def rows(self, contenders: Sequence[Contender]) -> Iterator[dict[str, Any]]:
        """A row per contender, all timed in turns in this process; memory is that of a new process for each.

        The rows come one by one, as soon as their memory and PSNR are known.
        """
        if not contenders:
            return
        latencies = self._latencies(contenders)
        cuts: dict[str, list[str]] = {entry.name: [] for entry in contenders}
        for name, latency in latencies.items():
            if latency.runs < self.repeats:
                cuts[name].append(f"{latency.runs} of {self.repeats} runs were timed, the limit is {self.limit:g} s")
        rates = self._rates(contenders, latencies, cuts)
        for entry in contenders:
            self.step(entry.name, None)
            cut = cuts[entry.name]
            row = {
                **latency_row(entry.name, entry.title, latencies[entry.name]),
                "repeats": latencies[entry.name].runs,
                "tiles_per_second": _rounded(rates.get(entry.name), 2),
                "peak_mib": _rounded(self._memory(entry), 1),
                "file_bytes": entry.file_bytes,
                "export_seconds": _rounded(entry.seconds, 2),
                "psnr": self._quality(entry),
            }
            self.step(None, None)
            yield {**row, "cut": cut} if cut else row

    def _begin(self, name: str) -> None:
        self.step(name, self.limit)

    def _latencies(self, contenders: Sequence[Contender]) -> dict[str, Latency]:
        with self.progress.stage(f"{self.title}: latency", _WARM_UP + self.repeats) as advance:
            return time_in_turns(
                {entry.name: entry.tile for entry in contenders},
                self.manifest.tile,
                self.repeats,
                _WARM_UP,
                limit=self.limit,
                advance=advance,
                begin=self._begin,
            )

    def _rates(
        self, contenders: Sequence[Contender], latencies: Mapping[str, Latency], cuts: Mapping[str, list[str]]
    ) -> dict[str, float]:
        """Tiles per second, in turns; of none that by its latency would take longer than the limit.

        The compiler says how many tiles it takes at a time; they share the cores, so that they take as long as in turn.
        """
        compiled: dict[str, openvino.CompiledModel] = {}
        bursts = _BURSTS[self.manifest.task]
        with self.progress.stage(f"{self.title}: throughput", len(contenders) + 1) as advance:
            for done, entry in enumerate(contenders):
                advance(done, entry.title)
                self._begin(entry.name)
                graph = entry.throughput(self.threads)
                if graph is None:
                    continue
                tiles = bursts * (_ROUNDS + 1) * graph.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
                if self.limit is not None and tiles * latencies[entry.name].median_ms / 1000 > self.limit:
                    cuts[entry.name].append(f"tiles per second would take longer than {self.limit:g} s")
                else:
                    compiled[entry.name] = graph
            advance(len(contenders), "in turns")
            rates = measure_throughput(compiled, self.manifest.tile, _ROUNDS, bursts, self._begin)
            self.step(None, None)
            advance(len(contenders) + 1)
        return rates

    def _memory(self, entry: Contender) -> float | None:
        if entry.graph is None:
            return None
        tile, threads = self.manifest.tile, self.threads
        return peak_memory(
            entry.graph, entry.weights, tile, precision=entry.precision, threads=threads, exact=entry.exact
        )

    def _quality(self, entry: Contender) -> dict[str, float | None]:
        table = measure_forms(self.task, {entry.name: entry.form}, self.sets, self.progress)
        return {name: _rounded(table[name][entry.name]["psnr"]) for name in table}


def row_text(row: Mapping[str, Any]) -> str:
    """A row in one line, of what is known of it."""
    if "failed" in row:
        return f"{row['title']} fails: {row['failed']}"
    parts = [f"{row['median_ms']:.1f} ms"]
    for key, unit, digits in (("tiles_per_second", "tiles/s", 1), ("peak_mib", "MiB", 0)):
        if row[key] is not None:
            parts.append(f"{row[key]:.{digits}f} {unit}")
    for name, decibels in (row["psnr"] or {}).items():
        parts.append(f"{name} {'equal' if decibels is None else f'{decibels:.2f} dB'}")
    return "; ".join([f"{row['title']}: {', '.join(parts)}", *row.get("cut", ())])


def _rounded(value: float | None, digits: int = 4) -> float | None:
    return None if value is None else round(value, digits)

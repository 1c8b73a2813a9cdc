"""The table of a bench, made in a process that can be killed, so that no contender can take the others with it."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from qsci_plugins.comparing.bench import bench_here
from qsci_plugins.comparing.bench_rows import row_text
from qsci_plugins.comparing.settings import ROWS, BenchSettings
from qsci_plugins.errors import UserError
from qsci_plugins.evaluation.baselines import Failed
from qsci_plugins.evaluation.latency import failed_row
from qsci_plugins.pipeline.child_process import EventProgress, Events, KilledError, child_events
from qsci_plugins.progress import Progress

__all__ = ["bench_model", "make_table"]

_PROCESS = "qsci_plugins.comparing.bench_isolated"


def bench_model(
    model: Path,
    settings: BenchSettings,
    progress: Progress | None = None,
    begin: Callable[[dict[str, Any]], object] = lambda table: None,
) -> dict[str, Any]:
    """Latency of one tile, tiles per second, peak memory, size, seconds of export and PSNR of every form.

    `model` is the output of `qsci run`, whose float network gives the rows for torch, OpenVINO fp32, bf16 (where the CPU
    has it), NNCF's default INT8 and the scheme's static form at the recipe's placement, both calibrated on the recipe's
    patches or clips; or a model folder, which has its own rows alone. All forms take turns in one process, which is not
    this one. Of these other ways to run the network one that fails keeps its row, with the reason in `failed` and no
    numbers, and so does any form at which the process crashes.

    `settings.only` names the rows that are made, of `settings.ROWS`. `settings.limit` is in seconds: a row whose making
    (conversion, quantization) or any of whose inferences takes longer is ended then and has failed. One whose timed runs
    take longer in all has fewer, and one whose throughput would has none; `repeats` says how many runs were timed, and
    `cut` what is missing. Memory, PSNR and the reading of the recipe and its calibration images have no limit. After a
    form that had to be ended, or crashed, the others that are not complete begin anew in another process.

    `psnr` is by set, in dB (of images on Y); the sets are those of `data` (the standard ones; for video its scenes), of
    which `sets` names some; without either the built-in one. Every row is noted to `progress` when it is complete, and
    `begin` is given the table before its first row: after KeyboardInterrupt it has the complete ones. Raises UserError
    for a folder that is neither, for sets that are not there or do not suit the network, for names of no row, and where
    the process is killed while no form is at work (mostly for its memory).
    """
    _check(settings)
    return _Supervised(model, settings, progress or Progress(), begin).table()


def _check(settings: BenchSettings) -> None:
    for name in settings.only or ():
        if name not in ROWS:
            raise UserError(f"--only {name}: no row is called so; the rows are {', '.join(ROWS)}")
    if settings.limit is not None and not settings.limit > 0:
        raise UserError(f"--limit {settings.limit}: should be seconds above 0, or be left out")


class _Supervised:
    """A table in the making, and what of it is complete."""

    def __init__(
        self, model: Path, settings: BenchSettings, progress: Progress, begin: Callable[[dict[str, Any]], object]
    ) -> None:
        self._model = model
        self._settings = settings
        self._progress = progress
        self._begin = begin
        self._table: dict[str, Any] = {}
        self._titles: dict[str, str] = {}
        self._rows: dict[str, dict[str, Any]] = {}

    def table(self) -> dict[str, Any]:
        """All of it, in as many processes as it takes; in this one where another cannot even begin."""
        while not self._titles or self._rows.keys() != self._titles.keys():
            try:
                self._run()
            except KilledError as killed:
                if killed.step is None:
                    raise UserError(
                        f"bench: the process {killed.reason}, perhaps for its memory; name fewer rows with --only"
                    ) from None
                row = failed_row(Failed(killed.step, self._titles[killed.step], killed.reason))
                self._complete(row)
                self._progress.note(row_text(row))
            if not self._titles:  # what has failed is shown here, and classes that only this program knows are found
                return bench_here(self._model, self._settings, self._progress, lambda table, titles: self._begin(table))
        return self._table

    def _run(self) -> None:
        settings = self._settings
        request = {
            "model": str(self._model),
            "data": None if settings.data is None else str(settings.data),
            "skip": list(self._rows),
            **{key: getattr(settings, key) for key in ("sets", "repeats", "threads", "only", "limit")},
        }
        with (
            tempfile.TemporaryDirectory(prefix="qsci-bench-") as place,
            closing(child_events(_PROCESS, Path(place), request, self._progress)) as events,
        ):
            for event in events:
                self._take(event)

    def _take(self, event: dict[str, Any]) -> None:
        if "table" in event and not self._titles:
            self._table, self._titles = event["table"], event["titles"]
            self._begin(self._table)
        elif "row" in event:
            self._complete(event["row"])
        elif "refused" in event and self._titles:
            raise UserError(event["refused"])
        elif "error" in event and self._titles:
            raise RuntimeError(event["error"])

    def _complete(self, row: dict[str, Any]) -> None:
        self._rows[row["name"]] = row
        self._table["rows"] = [self._rows[name] for name in self._titles if name in self._rows]


def make_table(place: Path) -> None:
    """What the other process does, as is asked in the folder `place`."""
    events = Events(place)
    tempfile.tempdir = str(place)  # which goes with us, where this process is killed before it can clean up
    asked = events.request
    model, skip = Path(asked.pop("model")), asked.pop("skip")
    data = asked.pop("data")
    settings = BenchSettings(models=[model], data=None if data is None else Path(data), **asked)
    try:
        bench_here(
            model,
            settings,
            EventProgress(events),
            lambda table, titles: events.send(table=table, titles=titles),
            events.step,
            lambda row: events.send(row=row),
            skip,
        )
    except UserError as error:
        events.send(refused=str(error))
    except Exception as error:
        events.send(error=f"{type(error).__name__}: {error}")
    events.send(done=True)


if __name__ == "__main__":
    make_table(Path(sys.argv[1]))

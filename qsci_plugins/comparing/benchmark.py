"""Float, NNCF's default, quantized in torch and in OpenVINO side by side, for any number of recipes and sets."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from qsci_plugins.cluster.connection import check_cluster, connected
from qsci_plugins.comparing.fingerprints import content_fingerprint, environment_fingerprint
from qsci_plugins.comparing.forms import (
    FormSource,
    PieceWork,
    SetSource,
    close_form,
    forms_of,
    measure_piece,
    write_default_graph,
)
from qsci_plugins.comparing.log import MeasurementLog, open_log
from qsci_plugins.comparing.processes import on_machines, on_processes
from qsci_plugins.comparing.settings import BenchmarkSettings, MeasuringSettings
from qsci_plugins.comparing.subjects import Subject, finish_subject, read_subjects
from qsci_plugins.errors import UserError
from qsci_plugins.files import write_text
from qsci_plugins.machine import describe_machine, usable_threads
from qsci_plugins.pipeline.measure import means
from qsci_plugins.pipeline.networks import device_of
from qsci_plugins.pipeline.task import PieceResult, PieceSet, task_named
from qsci_plugins.progress import Progress

__all__ = ["BENCHMARK_FILE", "RUNS", "measure_subjects", "run_benchmark"]

#: in the output folder: the result, the measurements so far, the runs of recipes, and NNCF's graphs
BENCHMARK_FILE, LOG_FILE, RUNS, BASELINES = "benchmark.json", "measurements.jsonl", "runs", "baselines"

_VERSION = 2

#: the forms that are a recipe's own, not its float network's
_OWN = ("torch", "openvino")


def run_benchmark(settings: BenchmarkSettings, progress: Progress | None = None) -> dict[str, Any]:
    """Runs the recipes among the targets that have no run below the output yet, and measures all forms.

    See `measure_subjects`.
    """
    subjects = read_subjects(settings.targets, settings.output / RUNS, settings.overrides, settings.device)
    return measure_subjects(subjects, settings, progress)


def measure_subjects(
    subjects: Sequence[Subject], settings: MeasuringSettings, progress: Progress | None = None
) -> dict[str, Any]:
    """PSNR (of images on Y), SSIM, FAB and operations by form and set, also written to benchmark.json in the output.

    Default sets are what `data` holds (the standard sets; for video its scenes), without `data` the built-in photos or
    scene. Every result of a piece (an image or a scene) is appended to measurements.jsonl as it comes, and never measured
    again while the network, the piece, the processor and the packages are the same. `jobs` processes (default: one per
    core) share the pieces; one thread works on each, so that their number changes nothing but the time.
    With `cluster` workers of Ray do, and of a cluster of several machines each runs a recipe of its own before.
    What torch measures on a GPU, by the recipes' `device`, is measured one after another.
    Raises UserError for sets that are not there, before the long work begins.
    """
    progress = progress or Progress()
    output = settings.output
    if settings.cluster is not None:
        check_cluster(settings.cluster)
    sources = [_set_source(subject, settings) for subject in subjects]
    opened = {source: _open_sets(source) for source in dict.fromkeys(sources)}
    _finish(subjects, settings, progress)
    environment = environment_fingerprint()
    forms: dict[tuple[str, str], tuple[FormSource, SetSource]] = {}
    for subject, source in zip(subjects, sources, strict=True):
        for form in forms_of(subject, environment, output / BASELINES if settings.baseline else None):
            title = subject.title if form.kind in _OWN else ""  # recipes of one network share its other forms
            forms.setdefault((form.fingerprint, title), (form, source))
    for form, _ in forms.values():
        if form.graph is not None and not form.graph.is_dir():
            with progress.stage(f"{form.subject.title}: NNCF's default INT8", 1) as advance:
                write_default_graph(form)
                advance(1)
    names = {source: _piece_names(source, sets) for source, sets in opened.items()}
    rows = [(form, _work(form, source, opened[source], names[source])) for form, source in _grouped(forms.values())]
    with open_log(output / LOG_FILE) as log:
        _measure([work for _, works in rows for work in works], log, settings, progress)
        result = {
            "version": _VERSION,
            "machine": describe_machine(),
            "rows": [_row(form, works, log) for form, works in rows],
        }
    write_text(output / BENCHMARK_FILE, json.dumps(result, indent=2, allow_nan=False) + "\n")
    return result


def _finish(subjects: Sequence[Subject], settings: MeasuringSettings, progress: Progress) -> None:
    """Runs the recipes that are not run yet, one after another here, or one on each machine of a cluster.

    A recipe takes all cores of a machine, as its result may depend on their number in the last digit.
    """
    missing = [subject for subject in subjects if not subject.run.exists()]
    elsewhere = [subject for subject in missing if device_of(subject.recipe) == "cpu"]
    if settings.cluster is None or settings.cluster == "local" or len(elsewhere) < 2:
        for subject in missing:
            subject.finish(progress)
        return
    for subject in missing:
        if subject not in elsewhere:
            subject.finish(progress)
    threads = usable_threads()
    with connected(settings.cluster, threads, progress), progress.stage("running recipes", len(elsewhere)) as advance:
        finished = on_machines(
            finish_subject, elsewhere, settings.jobs, lambda subject: subject.title, progress, threads=threads
        )
        try:
            for count, (subject, _) in enumerate(finished, 1):
                advance(count, subject.title)
        except KeyboardInterrupt:
            raise KeyboardInterrupt("stopped; finished recipes are kept, and the same command goes on") from None


def _set_source(subject: Subject, settings: MeasuringSettings) -> SetSource:
    names = settings.sets or (["builtin"] if settings.data is None else None)
    return SetSource(subject.task.name, subject.shape, settings.data, None if names is None else tuple(names))


def _open_sets(source: SetSource) -> list[PieceSet]:
    sets = source.open()
    if not sets:
        raise UserError(f"{source.data} has none of the standard sets; name folders in it with --sets")
    if len({pieces.name for pieces in sets}) < len(sets):
        raise UserError("two of the sets have the same name; rename a folder, as tables show names")
    return sets


def _piece_names(source: SetSource, sets: Sequence[PieceSet]) -> list[list[str]]:
    """The fingerprints of all pieces, set by set."""
    task = task_named(source.task)
    return [[content_fingerprint(task.content(piece)) for piece in pieces.pieces] for pieces in sets]


def _work(
    form: FormSource, source: SetSource, sets: Sequence[PieceSet], fingerprints: Sequence[Sequence[str]]
) -> list[PieceWork]:
    return [
        PieceWork(form, source, number, index, name, sets[number].name)
        for number, names in enumerate(fingerprints)
        for index, name in enumerate(names)
    ]


def _grouped(forms: Iterable[tuple[FormSource, SetSource]]) -> list[tuple[FormSource, SetSource]]:
    """In the order of a table: of each float network itself, NNCF's default, then what became of it recipe by recipe."""
    forms = list(forms)
    networks = list(dict.fromkeys(form.subject.network for form, _ in forms))
    return sorted(forms, key=lambda item: (networks.index(item[0].subject.network), item[0].kind in _OWN))


def _measure(works: Sequence[PieceWork], log: MeasurementLog, settings: MeasuringSettings, progress: Progress) -> None:
    wanted = {(work.form.fingerprint, work.piece_fingerprint): work for work in works}
    missing = [work for key, work in wanted.items() if log.get(*key) is None]
    pieces = "images" if all(work.sets.task == "sr" for work in works) else "pieces"
    if done := len(wanted) - len(missing):
        progress.note(f"{done} of {len(wanted)} {pieces} were measured before")
    if not missing:
        return
    connection = (
        nullcontext() if settings.cluster is None else connected(settings.cluster, settings.jobs or 1, progress)
    )
    with connection, progress.stage(f"measuring {pieces}", len(missing)) as advance:
        try:
            for count, (work, result) in enumerate(_measured(missing, settings, progress), 1):
                about = {"subject": work.form.subject.title, "kind": work.form.kind, "set": work.set_name}
                log.add(work.form.fingerprint, work.piece_fingerprint, result, **about)
                advance(count, f"{work.form.subject.title}, {work.form.kind}, {result.name}: {result.psnr:.2f} dB")
        except KeyboardInterrupt:
            raise KeyboardInterrupt("stopped; what was measured is kept, and the same command goes on") from None
        finally:
            close_form()


def _measured(
    works: Sequence[PieceWork], settings: MeasuringSettings, progress: Progress
) -> Iterator[tuple[PieceWork, PieceResult]]:
    """Every piece with its result: those of a GPU in this process alone, as each process would take memory there."""
    on_gpu = [work for work in works if work.form.device != "cpu"]
    others = [work for work in works if work.form.device == "cpu"]
    yield from on_processes(measure_piece, on_gpu, 1)
    close_form()
    if settings.cluster is None:
        jobs = settings.jobs or usable_threads()
        yield from on_processes(measure_piece, others, max(1, min(jobs, len(others))))
    else:
        yield from on_machines(measure_piece, others, settings.jobs, _piece_title, progress)


def _piece_title(work: PieceWork) -> str:
    return f"{work.form.subject.title}, {work.form.kind}, {work.set_name}: piece {work.piece_number + 1}"


def _row(form: FormSource, works: Sequence[PieceWork], log: MeasurementLog) -> dict[str, Any]:
    subject = form.subject
    own = form.kind in _OWN
    row: dict[str, Any] = {
        "network": _network_title(subject),
        "task": subject.task.name,
        "title": subject.title if own else None,
        "form": form.kind,
        "scheme": subject.recipe.scheme if own else None,
        "seconds": subject.seconds() if own else None,
        "sets": {},
    }
    results: dict[str, list[PieceResult]] = {}
    for work in works:
        result = log.get(form.fingerprint, work.piece_fingerprint)
        assert result is not None
        results.setdefault(work.set_name, []).append(result)
    for name, pieces in results.items():
        each = {result.name: _rounded({**means([result]), **result.extras}) for result in pieces}
        row["sets"][name] = {**_rounded(means(pieces)), "pieces": each}
    return row


def _network_title(subject: Subject) -> str:
    weights = subject.recipe.model.weights
    frames = subject.shape.frames
    title = f"{subject.architecture} x{subject.shape.scale}" if frames is None else f"{subject.architecture} T{frames}"
    return title if weights is None else f"{title} {weights if weights.startswith('builtin:') else Path(weights).stem}"


def _rounded(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """Digits beyond these are noise."""
    digits = {"ssim": 6}
    return {
        key: round(value, digits.get(key, 4)) if isinstance(value, float) and math.isfinite(value) else value
        for key, value in numbers.items()
    }

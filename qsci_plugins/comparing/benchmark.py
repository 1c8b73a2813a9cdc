"""Float, NNCF's default, quantized in torch and in OpenVINO side by side, for any number of recipes and sets."""

from __future__ import annotations

import itertools
import json
import math
import multiprocessing
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch

from qsci_plugins.comparing.forms import FormSource, ImageTask, close_form, forms_of, measure_image, write_default_graph
from qsci_plugins.comparing.log import MeasurementLog, environment_fingerprint, image_fingerprint, open_log
from qsci_plugins.comparing.subjects import Subject, read_subjects
from qsci_plugins.errors import UserError
from qsci_plugins.evaluation.benchmark import BUILTIN, BenchmarkSet, set_result
from qsci_plugins.evaluation.latency import usable_threads
from qsci_plugins.files import write_text
from qsci_plugins.machine import describe_machine
from qsci_plugins.pipeline.image_prepare import find_sets
from qsci_plugins.progress import Progress
from qsci_plugins.telemetry import switch_off_telemetry

__all__ = ["BENCHMARK_FILE", "measure_subjects", "on_processes", "run_benchmark"]

#: in the output folder: the result, the measurements so far, the runs of recipes, and NNCF's graphs
BENCHMARK_FILE, LOG_FILE, RUNS, BASELINES = "benchmark.json", "measurements.jsonl", "runs", "baselines"

#: the forms that are a recipe's own, not its float network's
_OWN = ("torch", "openvino")


def run_benchmark(
    targets: Sequence[str | Path],
    output: str | Path,
    *,
    data: str | Path | None = None,
    sets: Sequence[str] | None = None,
    overrides: Sequence[str] = (),
    baseline: bool = False,
    jobs: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Runs the recipes among `targets` (with `overrides`) that have no run below `output` yet, and measures all forms.

    A target is a recipe file, the name of a shipped recipe, or the output folder of `qsci run`. See `measure_subjects`.
    """
    subjects = read_subjects(targets, Path(output) / RUNS, overrides)
    return measure_subjects(subjects, Path(output), data, sets, baseline=baseline, jobs=jobs, progress=progress)


def measure_subjects(
    subjects: Sequence[Subject],
    output: Path,
    data: str | Path | None = None,
    sets: Sequence[str] | None = None,
    *,
    baseline: bool = False,
    jobs: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """PSNR-Y, SSIM, FAB and operations by form and set, also written to `output`/benchmark.json.

    Default sets are the standard ones in `data`, without `data` the built-in photos. Every image's result is appended to
    `output`/measurements.jsonl as it comes, and never measured again while the network, the image, the processor and
    the packages are the same. `jobs` processes (default: one per core) share the images; one thread works on each,
    so that their number changes nothing but the time.
    Raises UserError for sets that are not there, before the long work begins.
    """
    progress = progress or Progress()
    folder = None if data is None else Path(data)
    names = sets or ([BUILTIN] if folder is None else None)
    benchmarks = {scale: find_sets([], folder, scale, names) for scale in {subject.scale for subject in subjects}}
    if not all(benchmarks.values()):
        raise UserError(f"{data} has none of the standard sets; name folders in it with --sets")
    for found in benchmarks.values():
        if len({benchmark.name for benchmark in found}) < len(found):
            raise UserError("two of the sets have the same name; rename a folder, as tables show names")
    for subject in subjects:
        subject.finish(progress)
    environment = environment_fingerprint()
    forms: dict[tuple[str, str], FormSource] = {}
    for subject in subjects:
        for form in forms_of(subject, environment, output / BASELINES if baseline else None):
            title = subject.title if form.kind in _OWN else ""  # recipes of one network share its other forms
            forms.setdefault((form.fingerprint, title), form)
    for form in forms.values():
        if form.graph is not None and not form.graph.is_file():
            with progress.stage(f"{form.subject.title}: NNCF's default INT8", 1) as advance:
                write_default_graph(form)
                advance(1)
    tasks = [
        ImageTask(form, image, benchmark.name, benchmark.scale, image_fingerprint(image, benchmark.scale))
        for form in _grouped(forms.values())
        for benchmark in benchmarks[form.subject.scale]
        for image in benchmark.images
    ]
    with open_log(output / LOG_FILE) as log:
        _measure(tasks, log, jobs or usable_threads(), progress)
        rows = [_row(form, tasks, benchmarks[form.subject.scale], log) for form in _grouped(forms.values())]
    result = {"version": 1, "machine": describe_machine(), "rows": rows}
    write_text(output / BENCHMARK_FILE, json.dumps(result, indent=2, allow_nan=False) + "\n")
    return result


def _grouped(forms: Iterable[FormSource]) -> list[FormSource]:
    """In the order of a table: of each float network itself, NNCF's default, then what became of it recipe by recipe."""
    forms = list(forms)
    networks = list(dict.fromkeys(form.subject.network for form in forms))
    return sorted(forms, key=lambda form: (networks.index(form.subject.network), form.kind not in ("float", "nncf")))


def _measure(tasks: Sequence[ImageTask], log: MeasurementLog, jobs: int, progress: Progress) -> None:
    wanted = {(task.form.fingerprint, task.image_fingerprint): task for task in tasks}
    missing = [task for key, task in wanted.items() if log.get(*key) is None]
    if done := len(wanted) - len(missing):
        progress.note(f"{done} of {len(wanted)} images were measured before")
    if not missing:
        return
    with progress.stage("measuring images", len(missing)) as advance:
        try:
            for count, (task, result) in enumerate(on_processes(measure_image, missing, min(jobs, len(missing))), 1):
                about = {"subject": task.form.subject.title, "kind": task.form.kind, "set": task.set_name}
                log.add(task.form.fingerprint, task.image_fingerprint, result, **about)
                advance(count, f"{task.form.subject.title}, {task.form.kind}, {result.name}: {result.psnr_y:.2f} dB")
        except KeyboardInterrupt:
            raise KeyboardInterrupt("stopped; what was measured is kept, and the same command goes on") from None
        finally:
            close_form()


def _row(
    form: FormSource, tasks: Sequence[ImageTask], benchmarks: Sequence[BenchmarkSet], log: MeasurementLog
) -> dict[str, Any]:
    subject = form.subject
    own = form.kind in _OWN
    row: dict[str, Any] = {
        "network": _network_title(subject),
        "title": subject.title if own else None,
        "form": form.kind,
        "scheme": subject.recipe.scheme if own else None,
        "seconds": subject.seconds() if own else None,
        "sets": {},
    }
    for benchmark in benchmarks:
        results = []
        for task in tasks:
            if task.form.fingerprint == form.fingerprint and task.set_name == benchmark.name:
                result = log.get(form.fingerprint, task.image_fingerprint)
                assert result is not None
                results.append(result)
        mean = set_result(benchmark, results)
        row["sets"][benchmark.name] = {
            **_plain(mean.psnr_y, mean.ssim, mean.extras),
            "images": {one.name: _plain(one.psnr_y, one.ssim, one.extras) for one in results},
        }
    return row


def _network_title(subject: Subject) -> str:
    weights = subject.recipe.model.weights
    title = f"{subject.architecture} x{subject.scale}"
    return title if weights is None else f"{title} {weights if weights.startswith('builtin:') else Path(weights).stem}"


def _plain(decibels: float, ssim: float, extras: dict[str, float]) -> dict[str, float | None]:
    """JSON has no infinity, which is what two equal pictures give; digits beyond these are noise."""
    numbers = {"psnr_y": round(decibels, 4) if math.isfinite(decibels) else None, "ssim": round(ssim, 6)}
    return {**numbers, **{name: round(value, 4) for name, value in extras.items()}}


Task = TypeVar("Task")
Result = TypeVar("Result")


def on_processes(work: Callable[[Task], Result], tasks: Sequence[Task], jobs: int) -> Iterator[tuple[Task, Result]]:
    """Yields every task with its result as it comes; `work` is a module's function, on one torch thread.

    With one job all runs in this process and in order. At most two tasks per process wait at any time. What ends the
    iteration (Ctrl-C, an error) waits for the pieces at work and drops the rest.
    Raises UserError where a process was killed, which is mostly the system's way to say that memory has run out.
    """
    if jobs == 1:
        with _one_thread():
            for task in tasks:
                yield task, work(task)
        return
    context = multiprocessing.get_context("spawn")  # a fork would take over the locks of torch's and OpenVINO's threads
    pool = ProcessPoolExecutor(jobs, context, _begin)
    remaining = iter(tasks)
    running: dict[Future[Result], Task] = {}
    try:
        while True:
            for task in itertools.islice(remaining, 2 * jobs - len(running)):
                running[pool.submit(work, task)] = task
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                yield running.pop(future), future.result()
    except BrokenProcessPool:
        raise UserError(f"one of {jobs} processes was killed, perhaps for its memory; use fewer --jobs") from None
    finally:
        pool.shutdown(cancel_futures=True)


def _begin() -> None:
    switch_off_telemetry()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent to handle
    torch.set_num_threads(1)


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)

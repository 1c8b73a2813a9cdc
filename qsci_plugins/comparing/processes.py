"""Work shared by processes, here or on a Ray cluster, and the threads that each of them computes on.

The pool of `--jobs` is there in a second and needs no extra; Ray, which takes some, has machines beside this one.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import platform
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import torch

from qsci_plugins.cluster.sharing import WorkerSpec, on_cluster
from qsci_plugins.comparing.fingerprints import environment_fingerprint
from qsci_plugins.errors import UserError
from qsci_plugins.progress import Progress
from qsci_plugins.telemetry import switch_off_telemetry

__all__ = ["on_machines", "on_processes", "torch_threads"]

Item = TypeVar("Item")
Result = TypeVar("Result")


def on_processes(work: Callable[[Item], Result], items: Sequence[Item], jobs: int) -> Iterator[tuple[Item, Result]]:
    """Yields every item with its result as it comes; `work` is a module's function, on one torch thread.

    With one job all runs in this process and in order. At most two items per process wait at any time. What ends the
    iteration (Ctrl-C, an error) waits for the pieces at work and drops the rest.
    Raises UserError where a process was killed, which is mostly the system's way to say that memory has run out.
    """
    if jobs == 1:
        with torch_threads(1):
            for item in items:
                yield item, work(item)
        return
    context = multiprocessing.get_context("spawn")  # a fork would take over the locks of torch's and OpenVINO's threads
    pool = ProcessPoolExecutor(jobs, context, _begin)
    remaining = iter(items)
    running: dict[Future[Result], Item] = {}
    try:
        while True:
            for item in itertools.islice(remaining, 2 * jobs - len(running)):
                running[pool.submit(work, item)] = item
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                yield running.pop(future), future.result()
    except BrokenProcessPool:
        raise UserError(f"one of {jobs} processes was killed, perhaps for its memory; use fewer --jobs") from None
    finally:
        pool.shutdown(cancel_futures=True)


def on_machines(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    jobs: int | None,
    name: Callable[[Item], str] = str,
    progress: Progress | None = None,
    threads: int = 1,
) -> Iterator[tuple[Item, Result]]:
    """As `on_processes`, on so many torch threads, by `jobs` workers of a Ray cluster (None: as many as it has cores for).

    Inside `cluster.connection.connected`. The cluster's machines find the working folder and every path at the same place.
    Items of a worker that dies go to another; `name` is what an item is called in what is said of it. Raises UserError where
    machines lack the folder, or are of another kind than this one, on which results may differ.
    """
    shared = work, threads, os.getcwd(), environment_fingerprint()
    numbered = ((_Numbered(number, name(item)), item) for number, item in enumerate(items))
    workers = len(items) if jobs is None else min(jobs, len(items))
    spec = WorkerSpec(_set_up, shared, _call, threads, workers)
    for key, result in on_cluster(spec, numbered, progress=progress):
        if isinstance(result, UserError):
            raise result
        yield items[key.number], result


class _Numbered(NamedTuple):
    """What an item is known by; it reads as its name."""

    number: int
    name: str

    def __str__(self) -> str:
        return self.name


def _set_up(shared: tuple[Callable[[Any], Any], int, str, str]) -> Callable[[Any], Any]:
    work, threads, folder, environment = shared
    machine = platform.node()
    try:
        os.chdir(folder)
    except OSError as error:
        raise UserError(
            f"{machine}, a machine of the cluster, has no folder {folder} ({error.strerror}); share it"
        ) from None
    if environment_fingerprint() != environment:
        raise UserError(
            f"{machine}, a machine of the cluster, has another processor or other versions of packages than this one, and"
            " might measure other values; take machines of one kind"
        )
    torch.set_num_threads(threads)
    return work


def _call(work: Callable[[Any], Any], item: Any) -> Any:
    return work(item)


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Has torch compute with `count` threads, and afterwards with as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _begin() -> None:
    switch_off_telemetry()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent to handle
    torch.set_num_threads(1)

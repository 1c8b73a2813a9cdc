"""Work shared by processes, and the threads that each of them computes on."""

from __future__ import annotations

import itertools
import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import TypeVar

import torch

from qsci_plugins.errors import UserError
from qsci_plugins.telemetry import switch_off_telemetry

__all__ = ["on_processes", "torch_threads"]

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

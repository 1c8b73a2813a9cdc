"""Batches of a training, drawn ahead of their steps by processes of their own."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from qsci_plugins.errors import UserError

__all__ = ["DrawnAhead", "killed_worker", "suitable_workers"]

#: batches that each process has ready
_AHEAD = 2

#: a training of fewer steps ends before processes for it have paid for their start
_SHORT = 32


def suitable_workers(wanted: int | None, steps: int, on_gpu: bool) -> int:
    """How many processes draw for `steps` steps: `wanted`, else for a GPU as many as there are spare cores, up to 8.

    None by default on a CPU, whose cores train, and none without fork (Windows, macOS): the images, which forked
    processes share, would be copied to each.
    """
    if sys.platform == "darwin" or "fork" not in multiprocessing.get_all_start_methods() or steps < 2:
        return 0
    if wanted is not None:
        return wanted
    if steps < _SHORT:
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(8, cores - 1)) if on_gpu else 0


class DrawnAhead:
    """What `draw(step)` gives for the steps `begin` to `end` - 1, in their order; a step may be passed over.

    `workers` forked processes draw (0: the one that asks does), each on one thread, and `pinned` batches lie in memory
    that a GPU reads from directly. The first batch is drawn here, and by its size processes are left out for which shared
    memory has no room. `close` ends the processes.
    """

    def __init__(self, draw: Callable[[int], Any], begin: int, end: int, workers: int, *, pinned: bool = False) -> None:
        self._draw = draw
        self._next = begin
        self._first = draw(begin) if workers and begin < end else None
        self._batches: Any = None
        if self._first is None:
            return
        workers = min(workers, end - begin - 1, _room(_bytes(self._first)))
        if workers > 0:
            loader = DataLoader(
                _Steps(draw, begin + 1, end),
                batch_size=None,
                num_workers=workers,
                collate_fn=_as_drawn,
                pin_memory=pinned,
                worker_init_fn=_begin,
                multiprocessing_context="fork",
                prefetch_factor=_AHEAD,
                generator=torch.Generator(),  # else the seed of the workers is drawn from the network's random numbers
            )
            with warnings.catch_warnings():
                # Python warns of threads that hold locks in a forked process; the workers take none of theirs
                warnings.simplefilter("ignore", DeprecationWarning)
                self._batches = iter(loader)

    def take(self, step: int) -> Any:
        """The batch of a step, which is later than those taken before."""
        if self._first is not None and self._next <= step:
            first, self._first = self._first, None
            self._next += 1
            if self._next > step:
                return first
        if self._batches is None:
            return self._draw(step)
        batch = None
        while self._next <= step:
            batch = next(self._batches)
            self._next += 1
        return batch

    def close(self) -> None:
        """Ends the processes."""
        batches, self._batches, self._first = self._batches, None, None
        if batches is not None:
            batches._shutdown_workers()
            for worker in batches._workers:
                if worker.is_alive():  # it does not hear the signal that ends others
                    worker.kill()


def killed_worker(error: RuntimeError) -> UserError | None:
    """What to tell of an error that says that one of the processes was killed; it comes at any place of the program."""
    if not str(error).startswith("DataLoader worker (pid"):
        return None
    return UserError("a process that draws examples was killed, perhaps for its memory; set train.workers to 0")


class _Steps(Dataset[Any]):
    """The batches by their place after the first."""

    def __init__(self, draw: Callable[[int], Any], begin: int, end: int) -> None:
        self._draw, self._begin, self._count = draw, begin, end - begin

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Any:
        return self._draw(self._begin + index)


def _as_drawn(batch: Any) -> Any:
    return batch


def _begin(worker: int) -> None:
    # whoever is asked to stop is the process that trains; it needs the batch of the step under way
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # a thread that draws a progress bar may have held the lock of the streams during the fork
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115


def _bytes(batch: Any) -> int:
    if isinstance(batch, Tensor):
        return batch.numel() * batch.element_size()
    return sum(map(_bytes, _parts(batch)))


def _parts(batch: Any) -> Iterator[Any]:
    return iter(batch) if isinstance(batch, tuple | list) else iter(())


def _room(size: int) -> int:
    """For how many processes half of the free shared memory, through which batches come, is enough."""
    try:
        free = shutil.disk_usage("/dev/shm").free
    except OSError:
        return 1
    return free // 2 // max(1, (_AHEAD + 1) * size)

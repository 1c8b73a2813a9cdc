"""Pieces of work shared by the workers of a Ray cluster: each is set up once, and one that dies costs no piece."""

from __future__ import annotations

import signal
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from qsci_plugins.cluster.connection import load_ray
from qsci_plugins.errors import UserError
from qsci_plugins.machine import package_version, yield_waiting_threads
from qsci_plugins.progress import Progress
from qsci_plugins.telemetry import switch_off_telemetry

__all__ = ["WorkerSpec", "on_cluster"]

Shared = TypeVar("Shared")
State = TypeVar("State")
Item = TypeVar("Item")
Result = TypeVar("Result")
Key = TypeVar("Key", bound=Hashable)

#: items that a worker has at any time: one at work, and one on its way
_IN_FLIGHT = 2
#: workers that may die of one item, or one after another while they start
_ATTEMPTS = 3
#: seconds between two looks for machines that have joined, and until we say that we wait for the first worker
_POLL, _PATIENCE = 5.0, 30.0
#: packages whose versions decide the results, to the byte
_PACKAGES = ("qsci-plugins", "openvino", "numpy", "pillow", "isal", "av")


@dataclass(frozen=True)
class WorkerSpec(Generic[Shared, State, Item, Result]):
    """What workers do: `setup`, once, with what is sent to each of them, and then `work` with what came of that and a item.

    Both are functions of a module. `threads`: the cores that a worker takes; `workers`: how many there are at most, None for
    as many as the cluster has cores for.
    """

    setup: Callable[[Shared], State]
    shared: Shared
    work: Callable[[State, Item], Result]
    threads: int = 1
    workers: int | None = None


def on_cluster(
    spec: WorkerSpec[Any, Any, Item, Result],
    items: Iterable[tuple[Key, Item]],
    *,
    in_order: bool = False,
    progress: Progress | None = None,
) -> Iterator[tuple[Key, Result | UserError]]:
    """Yields the key of every item with its result, or the UserError that it ended with, as they come or `in_order`.

    Inside `connected`. Items are read when a worker has room for them, at most two for each; they and results travel
    through Ray's object store. Those of a worker that is killed, or whose machine is lost, go to another; an item that three
    workers die of has that for its error. What ends the iteration (Ctrl-C, an error) ends the workers.
    Raises UserError where workers cannot be set up.
    """
    with _WorkerPool(spec, progress or Progress()) as pool:
        finished: dict[int, tuple[Key, Result | UserError]] = {}
        shown = 0
        for number, key, result in pool.results(items, in_order):
            if not in_order:
                yield key, result
                continue
            finished[number] = key, result
            while shown in finished:
                yield finished.pop(shown)
                shown += 1
                pool.oldest = shown


@dataclass
class _Item:
    number: int
    key: Any
    content: Any
    failures: int = 0


class _WorkerPool:
    """The workers, those that start and those that are ready, and the items that they have."""

    def __init__(self, spec: WorkerSpec[Any, Any, Any, Any], progress: Progress) -> None:
        self._ray = ray = load_ray()
        self._spec = spec
        self._progress = progress
        # in a list, so that it is unpacked where the worker asks for it
        self._sent = [ray.put((_versions(), spec.setup, spec.work, spec.shared))]
        # a worker that died would come back without its set-up: a new one takes its place instead
        self._start = ray.remote(_Worker).options(num_cpus=spec.threads, max_restarts=0, max_task_retries=0).remote
        self._starting: dict[Any, Any] = {}
        self._ready: dict[Any, int] = {}
        self._running: dict[Any, tuple[Any, _Item]] = {}
        self._retries: deque[_Item] = deque()
        self._failures = 0
        self._next_look = 0.0
        self._idle: float | None = 0.0
        #: with results in order: the first one that is not yet there
        self.oldest = 0

    def __enter__(self) -> _WorkerPool:
        return self

    def __exit__(self, *about: object) -> None:
        if self._ray.is_initialized():  # else all have ended with the connection
            for worker in [*self._starting.values(), *self._ready]:
                self._ray.kill(worker)

    def results(self, items: Iterable[tuple[Any, Any]], in_order: bool) -> Iterator[tuple[int, Any, Any]]:
        """The number, key and result of each item as it comes."""
        numbered = (_Item(number, key, self._ray.put(item)) for number, (key, item) in enumerate(items))
        following = next(numbered, None)
        while following is not None or self._retries or self._running:
            self._start_workers()
            while (worker := self._free_worker()) is not None:
                if self._retries:
                    item = self._retries.popleft()
                elif following is not None and (not in_order or following.number < self.oldest + self._window()):
                    item, following = following, next(numbered, None)
                else:
                    break
                self._running[worker.run.remote(item.content)] = worker, item
                self._ready[worker] += 1
            for answer in self._wait():
                if answer in self._starting:
                    self._started(answer)
                else:
                    yield from self._finished(answer)

    def _start_workers(self) -> None:
        """Starts workers up to the number that there is room for, which grows with the cluster."""
        if time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + _POLL
        room = int(self._ray.cluster_resources().get("CPU", 0)) // self._spec.threads
        most = max(1, room if self._spec.workers is None else min(room, self._spec.workers))
        while len(self._starting) + len(self._ready) < most:
            worker = self._start()
            self._starting[worker.setup.remote(self._sent)] = worker

    def _free_worker(self) -> Any:
        worker = min(self._ready, key=self._ready.__getitem__, default=None)
        return None if worker is None or self._ready[worker] >= _IN_FLIGHT else worker

    def _window(self) -> int:
        return 2 * _IN_FLIGHT * max(1, len(self._ready))

    def _wait(self) -> list[Any]:
        done, _ = self._ray.wait([*self._running, *self._starting], num_returns=1, timeout=_POLL)
        if self._idle is not None and not self._ready and not done:
            self._idle += _POLL
            if self._idle >= _PATIENCE:
                self._progress.note(f"waiting for a machine of the cluster with {self._spec.threads} free cores")
                self._idle = None
        return list(done)

    def _started(self, answer: Any) -> None:
        worker = self._starting.pop(answer)
        try:
            refusal = self._answer(answer)
        except _WorkerLostError as lost:
            self._next_look = 0.0
            self._failures += 1
            if self._failures >= _ATTEMPTS:
                raise UserError(
                    f"{_ATTEMPTS} workers ended while they were set up ({lost}); use fewer --jobs"
                ) from lost
            return
        if refusal is not None:
            self._ray.kill(worker)
            raise refusal
        self._failures = 0
        self._ready[worker] = 0

    def _finished(self, answer: Any) -> Iterator[tuple[int, Any, Any]]:
        worker, item = self._running.pop(answer)
        try:
            result = self._answer(answer)
        except _WorkerLostError as lost:
            self._next_look = 0.0
            self._ready.pop(worker, None)
            self._ray.kill(worker)
            self._progress.note(f"{item.key}: its worker ended ({lost})")
            item.failures += 1
            if item.failures < _ATTEMPTS:
                self._retries.append(item)
                return
            result = UserError(
                f"{item.key}: {_ATTEMPTS} workers ended while they had it ({lost}), perhaps for their memory; use fewer --jobs"
            )
        else:
            if worker in self._ready:
                self._ready[worker] -= 1
        yield item.number, item.key, result

    def _answer(self, reference: Any) -> Any:
        """What a worker answered, or its own exception. Raises _WorkerLostError where it, its machine or the answer is lost."""
        try:
            return self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from error
        except self._ray.exceptions.RayError as error:
            raise _WorkerLostError(type(error).__name__) from error


class _WorkerLostError(Exception):
    """A worker died; says how Ray calls it."""


class _Worker:
    """A process of Ray's."""

    def setup(self, sent: list[Any]) -> UserError | None:
        """Returns why it cannot. What was sent is unpacked, and so imported, no sooner than telemetry is off."""
        switch_off_telemetry()
        yield_waiting_threads()
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent to handle
        here, (there, setup, self._work, shared) = _versions(), load_ray().get(sent[0])
        if here != there:
            return UserError(
                f"a machine of the cluster has {_text(here)}, and this one {_text(there)}; install the same"
            )
        try:
            self._state = setup(shared)
        except UserError as error:
            return error
        return None

    def run(self, item: Any) -> Any:
        """Does an item."""
        try:
            return self._work(self._state, item)
        except UserError as error:
            return error


def _versions() -> dict[str, str | None]:
    return {package: package_version(package) for package in _PACKAGES}


def _text(versions: dict[str, str | None]) -> str:
    return ", ".join(f"{package} {version}" for package, version in versions.items())

"""The inferences of a compiled graph that run at once, for any number of threads."""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

import openvino

__all__ = ["Requests"]


class Requests:
    """As many requests as the device is best at, lent to whichever thread needs one.

    Not OpenVINO's AsyncInferQueue: its callbacks take Python's lock in the device's threads, and a graph that is dropped
    a moment later waits for those threads with the lock held, for ever; and one queue has one callback.
    """

    def __init__(self, model: openvino.CompiledModel) -> None:
        self.model = model
        self.count = int(model.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
        self._idle: queue.SimpleQueue[openvino.InferRequest] = queue.SimpleQueue()
        for _ in range(self.count):
            self._idle.put(model.create_infer_request())

    def run(self, inputs: Iterable[Mapping[Any, Any]]) -> Iterator[openvino.InferRequest]:
        """The finished request of each of `inputs`, in their order; its results hold until the next one is asked for."""
        pending: deque[openvino.InferRequest] = deque()
        try:
            for given in inputs:
                request = self._take(wait=not pending)
                if request is None:  # all are busy, some of them for us
                    pending[0].wait()
                    yield pending[0]
                    request = pending.popleft()
                pending.append(request)
                request.start_async(given)
            while pending:
                pending[0].wait()
                yield pending[0]
                self._idle.put(pending.popleft())
        finally:
            for request in pending:
                with suppress(RuntimeError):  # the one that is being reported already
                    request.wait()
                self._idle.put(request)

    def _take(self, wait: bool) -> openvino.InferRequest | None:
        try:
            return self._idle.get(block=wait)
        except queue.Empty:
            return None

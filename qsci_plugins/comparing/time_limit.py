"""An end to work that takes too long, without a process or a thread that goes on behind what is timed next."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import TypeVar

__all__ = ["TimeLimitExceeded", "within"]

Result = TypeVar("Result")

#: seconds until the next try where work cannot be left
_RETRY = 0.05


class TimeLimitExceeded(BaseException):
    """Work took longer than it may. Not an Exception, so that no toolkit takes it for an error of its own to handle."""

    def __init__(self, limit: float) -> None:
        super().__init__(f"took longer than {limit:g} s")


def within(limit: float | None, work: Callable[[], Result]) -> Result:
    """What `work` returns; raises TimeLimitExceeded where that takes more than `limit` seconds (None: any time).

    The work runs in this thread and is left by an exception, so that nothing of it goes on. It can be left only between
    two steps of Python: one call of C++ (an inference, the compilation of a graph) ends first, and so does an import,
    as a half imported module could not be imported again. Where the system has no interval timer, and outside the main
    thread, which alone receives signals, the work ends in its own time and its result is dropped.
    """
    if limit is None:
        return work()
    start = time.monotonic()
    stoppable = hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()
    result = _stopped(limit, work) if stoppable else work()
    if time.monotonic() - start > limit:
        raise TimeLimitExceeded(limit)
    return result


def _stopped(limit: float, work: Callable[[], Result]) -> Result:
    def stop(_: int, frame: FrameType | None) -> None:
        if _is_importing(frame):
            signal.setitimer(signal.ITIMER_REAL, _RETRY)
        else:
            raise TimeLimitExceeded(limit)

    start = time.monotonic()
    handler = signal.signal(signal.SIGALRM, stop)
    delay, interval = signal.setitimer(signal.ITIMER_REAL, limit)
    try:
        try:
            return work()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        signal.signal(signal.SIGALRM, handler)
        if delay:  # of whoever else uses the timer
            signal.setitimer(signal.ITIMER_REAL, max(_RETRY, delay - (time.monotonic() - start)), interval)


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False

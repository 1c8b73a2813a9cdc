"""Work that may take only so long for its result to count."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

__all__ = ["TimeLimitExceeded", "within"]

Result = TypeVar("Result")


class TimeLimitExceeded(Exception):
    """Work took longer than it may."""


def within(limit: float | None, work: Callable[[], Result]) -> Result:
    """What `work` returns; raises TimeLimitExceeded where that took more than `limit` seconds (None: any time).

    The work is not interrupted: it ends in its own time, so that nothing of it goes on behind what is timed next.
    """
    start = time.monotonic()
    result = work()
    if limit is not None and time.monotonic() - start > limit:
        raise TimeLimitExceeded(f"took longer than {limit:g} s")
    return result

"""Work that may take only so long for its result to count."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

__all__ = ["TimeLimitError", "within"]

Result = TypeVar("Result")


class TimeLimitError(Exception):
    """Work took longer than it may."""


def within(limit: float | None, work: Callable[[], Result]) -> Result:
    """What `work` returns; raises TimeLimitError where that took more than `limit` seconds (None: any time).

    The work is not interrupted here, so that nothing of it goes on behind what is timed next: `child_process` ends the child.
    """
    start = time.monotonic()
    result = work()
    if limit is not None and time.monotonic() - start > limit:
        raise TimeLimitError(f"took longer than {limit:g} s")
    return result

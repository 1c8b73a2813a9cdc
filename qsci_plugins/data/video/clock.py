"""Time stamps that only ever grow."""

from __future__ import annotations

__all__ = ["SteadyClock"]


class SteadyClock:
    """Passes time stamps on as they are, but for those that are missing or step back.

    `step`: what a frame lasts, and `jump`: a step back of more means that the clip's clock was set anew there; both in
    ticks. From such a place on, time goes on where it was.
    """

    def __init__(self, step: int, jump: int) -> None:
        self._step = max(1, step)
        self._jump = jump
        self._offset = 0
        self._last: int | None = None

    def __call__(self, stamp: int | None) -> int:
        """The next frame's time stamp, later than all before it."""
        if self._last is None:
            self._last = stamp or 0
            return self._last
        value = self._last + self._step if stamp is None else stamp + self._offset
        if value <= self._last:
            if self._last - value > self._jump:
                self._offset += self._last + self._step - value
                value = self._last + self._step
            else:
                value = self._last + 1
        self._last = value
        return value

"""How a long run tells what it is doing; the command line draws it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["Advance", "Progress"]

#: called with (steps done, words about the last one)
Advance = Callable[[int, str], None]


class Progress:
    """Says nothing. Subclasses show notes, and stages that advance to a known total."""

    def note(self, text: str) -> None:
        """One line that the user should see."""

    @contextmanager
    def stage(self, title: str, total: int) -> Iterator[Advance]:
        """A stretch of `total` steps."""
        yield lambda done, text="": None

"""How a long run tells what it is doing; the command line draws it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["Advance", "Progress"]

#: called with the steps done and, by name, `text` (a few words) and `total` (where it became known only now)
Advance = Callable[..., None]


class Progress:
    """Says nothing. Subclasses show notes, and stages that advance to a known total."""

    def note(self, text: str) -> None:
        """One line that the user should see."""

    @contextmanager
    def stage(self, title: str, total: int) -> Iterator[Advance]:
        """A stretch of `total` steps."""
        yield _ignore


def _ignore(done: float, text: str = "", total: int | None = None) -> None:
    """Nobody watches."""

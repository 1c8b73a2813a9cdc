"""Progress that keeps what a user would read, and one that ends as with Ctrl-C."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from qsci_plugins.progress import Advance, Progress


class Notes(Progress):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


class StopAt(Notes):
    """Ctrl-C at a step of a stage."""

    def __init__(self, title: str, step: int) -> None:
        super().__init__()
        self.title = title
        self.step = step

    @contextmanager
    def stage(self, title: str, total: int) -> Iterator[Advance]:
        def advance(done: float, text: str = "", total: float | None = None) -> None:
            if title == self.title and done >= self.step:
                raise KeyboardInterrupt

        yield advance

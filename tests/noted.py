"""Progress that keeps what a user would read."""

from __future__ import annotations

from qsci_plugins.progress import Progress


class Notes(Progress):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

"""Progress on standard error: bars on a terminal, now and then a plain line elsewhere."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from qsci_plugins.progress import Advance, Progress

__all__ = ["PlainProgress", "console_progress", "one_line", "report"]

#: seconds between two plain lines of one stage
_PAUSE = 10.0


class PlainProgress(Progress):
    """One line when a stage begins, every few seconds, and when it ends with its seconds."""

    def __init__(self, stream: TextIO, pause: float = _PAUSE) -> None:
        self._stream = stream
        self._pause = pause

    def note(self, text: str) -> None:
        print(one_line(text), file=self._stream, flush=True)

    @contextmanager
    def stage(self, title: str, total: int) -> Iterator[Advance]:
        started = shown = time.monotonic()

        def advance(done: float, text: str = "", total: int | None = total) -> None:
            nonlocal shown
            if time.monotonic() - shown >= self._pause:
                shown = time.monotonic()
                number = f"{done:.0f}" if done >= 1000 else f"{done:.4g}"
                self.note(f"{title}: {number} of {total}{f', {text}' if text else ''}")

        self.note(f"{title} ...")
        yield advance
        self.note(f"{title}: {time.monotonic() - started:.1f} s")


class _Bars(Progress):
    """rich's bars, with the seconds of every finished stage left standing."""

    def __init__(self, bars: Any) -> None:
        self._bars = bars

    def note(self, text: str) -> None:
        self._bars.console.print(one_line(text), markup=False, highlight=False)

    @contextmanager
    def stage(self, title: str, total: int) -> Iterator[Advance]:
        started = time.monotonic()
        task = self._bars.add_task(title, total=total, text="")

        def advance(done: float, text: str = "", total: int | None = None) -> None:
            self._bars.update(task, completed=done, text=text, **({} if total is None else {"total": total}))

        try:
            yield advance
            self.note(f"{title}: {time.monotonic() - started:.1f} s")
        finally:
            self._bars.remove_task(task)


def report(result: object) -> None:
    """A command's result on standard output; on standard error where the former is closed, full or read by nobody.

    File names come out as the bytes that the system knows them by, whatever the encoding.
    """
    stream = sys.stdout
    try:
        if stream is None:
            raise OSError("standard output is closed")
        try:
            stream.write(f"{result}\n")
        except UnicodeEncodeError:
            stream.flush()
            stream.buffer.write(_encoded(f"{result}\n", stream.encoding))
        stream.flush()
    except (OSError, ValueError):
        if stream is not None:
            with suppress(OSError, ValueError):  # what is still buffered would fail again at the end
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
            sys.stdout = None  # type: ignore[assignment]
        if sys.stderr is not None:
            with suppress(OSError, ValueError):
                print(result, file=sys.stderr, flush=True)


def _encoded(text: str, encoding: str) -> bytes:
    try:
        return text.encode(encoding, "surrogateescape")
    except UnicodeEncodeError:
        return text.encode(encoding, "backslashreplace")


@contextmanager
def console_progress(stream: TextIO | None = None) -> Iterator[Progress]:
    """Bars where `stream` (standard error) is a terminal and rich is installed, else plain lines."""
    stream = stream or sys.stderr
    if stream is None:  # closed before Python began
        yield Progress()
        return
    bars = _make_bars() if stream is sys.stderr and stream.isatty() else None
    if bars is None:
        yield PlainProgress(stream)
        return
    with bars:
        yield _Bars(bars)


def _make_bars() -> Any:
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress
    except ImportError:
        return None
    return RichProgress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[text]}", markup=False),
        console=Console(stderr=True),
    )


def one_line(reason: object) -> str:
    """What an error says as one line that a terminal prints as it is: whatever is no printable character is escaped.

    A name that a stranger chose may have line breaks in it, or a terminal's commands.
    """
    text = str(reason).strip()
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)

"""How a long run reports its progress, which the command line draws, and how toolkits are kept from printing theirs."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout

__all__ = ["Advance", "Progress", "quiet"]

#: called with the steps done and, by name, `text` (a few words) and `total` (where it became known only now)
Advance = Callable[..., None]


class Progress:
    """Says nothing. Subclasses show notes, and stages that advance to a known total.

    >>> from qsci_plugins import Progress
    >>> class Lines(Progress):
    ...     def note(self, text: str) -> None:
    ...         print(text)
    >>> Lines().note("skipped notes.txt: not an image")
    skipped notes.txt: not an image
    >>> with Progress().stage("calibration", 2) as advance:
    ...     advance(1)
    """

    def note(self, text: str) -> None:
        """One line that the user should see."""

    @contextmanager
    def stage(self, title: str, total: int) -> Iterator[Advance]:
        """A stretch of `total` steps."""
        yield _ignore


def _ignore(done: float, text: str = "", total: int | None = None) -> None:
    """Nobody watches."""


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps off our output what the toolkits print while they load and work: progress bars, remarks, warnings."""
    loggers = [logging.getLogger(name) for name in ("nncf", "torch.utils.cpp_extension")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)

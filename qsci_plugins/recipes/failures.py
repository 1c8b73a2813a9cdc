"""A baseline that does not take somebody's network: what is compared goes on without it, and says why."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from qsci_plugins.errors import UserError

__all__ = ["Failed", "attempt"]

Made = TypeVar("Made")

_LONGEST = 300


@dataclass(frozen=True)
class Failed:
    """A row by its name and title that could not be made, and the reason in one line."""

    name: str
    title: str
    reason: str


def attempt(name: str, title: str, make: Callable[[], Made]) -> Made | Failed:
    """What `make` makes, or why it does not; for what others wrote, of which nobody knows what it may raise."""
    try:
        return make()
    except Exception as error:
        text = textwrap.shorten(str(error), _LONGEST, placeholder=" ...")
        kind = "" if text and isinstance(error, UserError) else type(error).__name__
        return Failed(name, title, ": ".join(part for part in (kind, text) if part))

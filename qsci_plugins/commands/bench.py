"""`qsci bench`: latency and quality of exported models."""

from __future__ import annotations

from typing import Any

__all__ = ["add"]


def add(commands: Any) -> None:
    """Adds the command to a parser."""

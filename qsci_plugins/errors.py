"""The one exception that means "the user can fix this"."""

from __future__ import annotations

from typing import Any

__all__ = ["UserError", "shown"]


class UserError(Exception):
    """A mistake in a file, key or value that the user gave.

    The message names what is wrong, why, and the way out. The command line prints it and exits with 2.

    >>> import qsci_plugins
    >>> try:
    ...     qsci_plugins.make_scheme({"name": "adabn"})
    ... except qsci_plugins.UserError as error:
    ...     print(error)
    scheme.name: no scheme is called 'adabn'; did you mean 'adabm'?
    """


def shown(value: Any) -> str:
    """A value as a message shows it: as Python writes it, in at most 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."

"""The one exception that means "the user can fix this"."""

from __future__ import annotations

__all__ = ["UserError", "one_line"]


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


def one_line(reason: object) -> str:
    """What an error says as one line that a terminal prints as it is: whatever is no printable character is escaped.

    A name that a stranger chose may have line breaks in it, or a terminal's commands.

    >>> from qsci_plugins.errors import one_line
    >>> print(one_line("a\\nb.png is empty"))
    a\\nb.png is empty
    """
    text = str(reason).strip()
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)

"""One process at a time compiles into a cache folder: OpenVINO itself fails where two write the same graph at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from qsci_plugins.errors import UserError

__all__ = ["LOCK", "cache_to_itself"]

#: the file in a cache folder that is locked, and stays there empty
LOCK = ".lock"


@contextmanager
def cache_to_itself(settings: Mapping[str, Any]) -> Iterator[None]:
    """Holds the CACHE_DIR of OpenVINO's `settings`, if there is one and the system has advisory locks.

    Raises UserError for a folder that cannot be written.
    """
    if "CACHE_DIR" not in settings:
        yield
        return
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    folder = Path(settings["CACHE_DIR"])
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / LOCK).open("ab")
    except OSError as error:
        raise UserError(f"the cache folder {folder} cannot be used: {error.strerror}; name another") from None
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield

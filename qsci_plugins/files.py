"""Two folders change names in one step, where the system can do that."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

__all__ = ["exchange"]

#: Linux' renameat2(2): paths relative to the working folder, and both must exist
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def exchange(first: Path, second: Path) -> bool:
    """Swaps two existing folders of one file system atomically; False, and nothing done, where that is not possible.

    It is on Linux with ext4, xfs, btrfs, tmpfs and most others, and not on some network file systems.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError):  # an old libc
        return False
    one, other = (ctypes.c_char_p(os.fsencode(path)) for path in (first, second))
    return bool(rename(_AT_FDCWD, one, _AT_FDCWD, other, ctypes.c_uint(_RENAME_EXCHANGE)) == 0)

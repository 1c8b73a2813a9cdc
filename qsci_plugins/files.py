"""How files and folders are written: complete or not at all, by one process at a time, swapped in one step."""

from __future__ import annotations

import ctypes
import errno
import glob
import os
import re
import stat
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from qsci_plugins.errors import UserError

__all__ = [
    "check_regular",
    "exchange",
    "locked",
    "replacing",
    "temporary_pattern",
    "write_bytes",
    "write_error",
    "write_text",
]

#: what torch's own writer says, in a RuntimeError, when the disk refuses
_TORCH_WRITER = re.compile("inline_container|iostream|PytorchStreamWriter")
_TORCH_NO_FOLDER = re.compile("Parent directory .* does not exist")

#: of a file's name in its temporary one, in bytes: both have to fit into the 255 that systems allow
_NAME_BYTES = 192

#: Linux' renameat2(2): paths relative to the working folder, and both must exist
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


@contextmanager
def replacing(file: Path | str, suffix: str = "") -> Iterator[Path]:
    """Yields a path beside `file` to write to, which takes its place when the block ends without an exception.

    Else what was written is removed, and `file` is as before. `suffix` ends the path, for writers that choose a format
    by it. Raises UserError where the system, or torch's own writer, refuses (a full disk, no folder, no permission).
    """
    file = Path(file)
    # one dot before the numbers: torch writes what precedes the last one into the file
    temporary = file.with_name(f"{_stem(file)}.{os.getpid()}-{threading.get_native_id()}{suffix}")
    try:
        yield temporary
        os.replace(temporary, file)
    except (OSError, RuntimeError) as error:
        refusal = write_error(file, error)
        if refusal is None:
            raise
        raise refusal from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def temporary_pattern(file: Path) -> str:
    """What the names of the temporary files match that `replacing` writes, and a killed process leaves, beside `file`."""
    return f"{glob.escape(_stem(file))}.*"


def _stem(file: Path) -> str:
    return "." + os.fsencode(file.name)[:_NAME_BYTES].decode(errors="ignore")


def write_error(file: Path | str, error: Exception) -> UserError | None:
    """What to raise for an exception of writing `file`; None where it is no refusal of the disk."""
    if isinstance(error, OSError):
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        return UserError(f"cannot write {file}: {'the disk is full' if full else error.strerror or error}")
    if isinstance(error, RuntimeError) and _TORCH_WRITER.search(str(error)):
        return UserError(f"cannot write {file}: the disk is full")
    if isinstance(error, RuntimeError) and _TORCH_NO_FOLDER.search(str(error)):
        return UserError(f"cannot write {file}: {error}")
    return None


def check_regular(file: Path | str) -> None:
    """Refuses to read from a pipe, a device or a socket: what waits for ever, never ends, or acts when it is opened.

    Links are followed. Raises UserError for one of those, and for what cannot be a name (NUL, lone surrogates); folders and
    files that are missing pass, about which readers have more to say.
    """
    try:
        mode = os.stat(file).st_mode
    except ValueError as error:
        raise UserError(f"{str(file)!r} cannot be the name of a file: {error}") from None
    except OSError:
        return
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        kind = "pipe" if stat.S_ISFIFO(mode) else "socket" if stat.S_ISSOCK(mode) else "device"
        raise UserError(f"cannot read {file}: it is a {kind}, not a regular file; write what it gives to a file first")


def write_bytes(file: Path | str, content: bytes) -> None:
    """Writes a file, complete or not at all. Raises UserError where the system refuses."""
    with replacing(file) as temporary:
        temporary.write_bytes(content)


def write_text(file: Path | str, text: str) -> None:
    """Writes a file in UTF-8 with line ends as they are, complete or not at all. Raises UserError as `write_bytes`."""
    write_bytes(file, text.encode("utf-8"))


@contextmanager
def locked(path: Path | str, busy: str | None = None) -> Iterator[None]:
    """Holds an advisory lock on a folder or a file, which is made where there is nothing.

    While another holder has it: waits, or raises UserError with the message `busy` where that is given. A killed process
    leaves no lock behind, nor do processes that it forked hold it on. Does nothing
    on systems without advisory locks. Raises OSError for a path that cannot be opened.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    # NFS locks only what is open for writing, which a folder cannot be
    descriptor = os.open(path, os.O_RDONLY if os.path.isdir(path) else os.O_RDWR | os.O_CREAT, 0o666)
    _held.add(descriptor)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if busy is None else fcntl.LOCK_NB))
        except BlockingIOError:
            raise UserError(busy or f"{path} is locked") from None
        yield
    finally:
        if descriptor in _held:
            _held.remove(descriptor)
            os.close(descriptor)


#: descriptors of the locks that this process holds
_held: set[int] = set()


def _leave_locks() -> None:
    """In a forked process: a lock is held until all copies of its descriptor are closed."""
    while _held:
        os.close(_held.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_locks)


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
    a, b = (ctypes.c_char_p(os.fsencode(path)) for path in (first, second))
    return bool(rename(_AT_FDCWD, a, _AT_FDCWD, b, ctypes.c_uint(_RENAME_EXCHANGE)) == 0)

"""The output folder of a run: built beside its place under another name, and moved there when it is complete."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from qsci_plugins.errors import UserError

__all__ = ["RECIPE_FILE", "STATES", "check_output", "work_folder", "write_bytes", "write_text"]

#: what marks a folder as a run's, finished or not
RECIPE_FILE = "recipe.yaml"

#: what a run goes on from after an interruption; removed from the finished folder
STATES = "*.state"

#: free bytes below which a failed write (whose own error may not say so) is put down to a full disk
_FULL = 256 * 1024


def check_output(output: Path, force: bool) -> None:
    """Raises UserError where the folder is not free: it exists with content, and `force` is off or it is no run's."""
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return
    if not output.is_dir():
        raise UserError(f"the output {output} is a file; name a folder that does not exist")
    if not force:
        raise UserError(f"the output folder {output} exists; name another, or replace it with --force")
    if not (output / RECIPE_FILE).is_file():
        raise UserError(f"{output} is not the output of a run (it has no {RECIPE_FILE}); --force does not replace it")


@contextmanager
def work_folder(output: Path, recipe: str, force: bool = False) -> Iterator[Path]:
    """A folder `output`.partial to write into, which becomes `output` when the block ends without an exception.

    Where an earlier run with the same `recipe` (its text) was interrupted, the folder holds what that run saved; of
    another recipe that is an error, unless `force`. Ctrl-C and errors keep it where there is a state to go on from, and
    else remove it.
    Raises UserError for an output that is not free, a second process at work on it, and a disk that refuses.
    """
    output = Path(os.path.abspath(output))
    _undo_half_a_swap(output)
    check_output(output, force)
    work = output.with_name(f"{output.name}.partial")
    if not output.name:
        raise UserError(f"{output} cannot be an output folder")
    try:
        work.mkdir(parents=True, exist_ok=True)
        with _locked(work, output):
            _adopt(work, recipe, force)
            try:
                yield work
            except BaseException:
                if not _has_state(work):
                    shutil.rmtree(work, ignore_errors=True)
                raise
            for state in work.glob(STATES):
                state.unlink()
            _swap(work, output)
    except OSError as error:
        raise _refused(error, work) from error
    except RuntimeError as error:  # what torch's and OpenVINO's C++ writers raise on a full disk
        free = _free(output.parent)
        if free is None or free > _FULL:
            raise
        raise UserError(f"cannot write {output}: the disk is full") from error


def write_text(file: Path, text: str) -> None:
    """Complete or not at all."""
    write_bytes(file, text.encode("utf-8"))


def write_bytes(file: Path, content: bytes) -> None:
    """Complete or not at all."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)


def _adopt(work: Path, recipe: str, force: bool) -> None:
    """Makes the work folder this recipe's."""
    found = work / RECIPE_FILE
    if found.is_file():
        if found.read_text(encoding="utf-8") == recipe:
            return
        if not force:
            raise UserError(f"{work} was left by an interrupted run of another recipe; remove it, or use --force")
    elif any(work.iterdir()):
        raise UserError(f"{work} is in the way, and not a run's; remove it or name another output")
    for entry in work.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    write_text(found, recipe)


def _has_state(work: Path) -> bool:
    return next(work.glob(STATES), None) is not None


def _swap(work: Path, output: Path) -> None:
    replaced = _replaced(output)
    if output.exists():
        os.rename(output, replaced)
    os.rename(work, output)
    shutil.rmtree(replaced, ignore_errors=True)


def _replaced(output: Path) -> Path:
    return output.with_name(f".{output.name}.replaced")


def _undo_half_a_swap(output: Path) -> None:
    """A run killed between the two renames of `_swap` has left the old folder under its other name."""
    replaced = _replaced(output)
    if (replaced / RECIPE_FILE).is_file():
        if output.exists():
            shutil.rmtree(replaced, ignore_errors=True)
        else:
            os.rename(replaced, output)


@contextmanager
def _locked(work: Path, output: Path) -> Iterator[None]:
    """One process per output, where the system has advisory locks; a killed process leaves none behind."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    descriptor = os.open(work, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise UserError(f"another process is writing {output}; wait for it, or name another output") from None
    finally:
        os.close(descriptor)


def _refused(error: OSError, work: Path) -> UserError:
    where = error.filename or work
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return UserError(f"cannot write {where}: the disk is full")
    return UserError(f"{where}: {error.strerror or error}")


def _free(folder: Path) -> int | None:
    with suppress(OSError):
        return shutil.disk_usage(folder).free
    return None

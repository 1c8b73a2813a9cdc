"""The output folder of a run: built beside its place under another name, and moved there when it is complete."""

from __future__ import annotations

import atexit
import errno
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from qsci_plugins.errors import UserError
from qsci_plugins.files import exchange, locked, temporary_pattern, write_error, write_text
from qsci_plugins.machine import memory_error

__all__ = [
    "BOARD",
    "CHECKPOINT",
    "INPUTS",
    "JOURNAL",
    "METRICS_FILE",
    "RECIPE_FILE",
    "STATES",
    "WEIGHTS_FILE",
    "check_output",
    "is_main",
    "process_count",
    "shared_work_folder",
    "work_folder",
]

#: what marks a folder as a run's, finished or not
RECIPE_FILE = "recipe.yaml"

#: what a float training leaves
WEIGHTS_FILE = "weights.safetensors"

#: what a run measured
METRICS_FILE = "metrics.json"

#: the trained result, which a run that is interrupted later does not train again
CHECKPOINT = "checkpoint.pt"

#: what a run goes on from after an interruption; removed from the finished folder
STATES = "*.state"

#: the state that is nothing to go on from by itself: how long the steps took
JOURNAL = "journal.state"

#: what the run began with, by key of the recipe: an interrupted one does not go on with another network or other images
INPUTS = "inputs.state"

#: the curves of a training, to which a run that goes on adds
BOARD = "tensorboard"

_KEPT = (RECIPE_FILE, CHECKPOINT, STATES, BOARD)


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
def work_folder(
    output: Path, recipe: str, force: bool = False, inputs: Mapping[str, str] | None = None
) -> Iterator[Path]:
    """A folder `output`.partial to write into, which becomes `output` when the block ends without an exception.

    Where an earlier run with the same `recipe` (its text) was interrupted, the folder holds what that run saved; of
    another recipe, or where a fingerprint of its `inputs` was another, that is an error, unless `force`. Ctrl-C and errors
    keep it where there is a state to go on from, and else remove it.
    Raises UserError for an output that is not free, a second process at work on it, and a disk that refuses.
    """
    output = Path(os.path.abspath(output))
    _undo_half_a_swap(output)
    check_output(output, force)
    work = output.with_name(f"{output.name}.partial")
    try:
        work.mkdir(parents=True, exist_ok=True)
        with locked(work, f"another process is writing {output}; wait for it, or name another output"):
            _adopt(work, recipe, force, inputs or {})
            try:
                yield work
                _swap(work, output)
            except BaseException as error:
                _leave(work, error)
                raise
        for state in output.glob(STATES):
            state.unlink()
    except OSError as error:
        with suppress(OSError):
            work.rmdir()  # where not even the recipe could be written
        raise UserError(_reason(error, work)) from error


def _leave(work: Path, error: BaseException) -> None:
    """Keeps what an unfinished run can go on from, and removes the rest; says so in what the user can put right."""
    kept = _has_state(work)
    with suppress(OSError):
        if kept:
            _clear(work, _KEPT)
        else:
            _remove(work)
    hint = f"; the steps done are kept in {work}, and the same command goes on from there" if kept else ""
    if isinstance(error, UserError):
        raise UserError(f"{error}{hint}") from error
    if isinstance(error, OSError):
        raise UserError(f"{_reason(error, work)}{hint}") from error
    if isinstance(error, RuntimeError) and (refusal := memory_error(error) or write_error(work, error)):
        raise UserError(f"{refusal}{hint}") from error


def _adopt(work: Path, recipe: str, force: bool, inputs: Mapping[str, str]) -> None:
    """Makes the work folder this recipe's."""
    found = work / RECIPE_FILE
    if found.is_file():
        changed, same = _changed(work, inputs), found.read_text(encoding="utf-8") == recipe
        if same and not changed:
            _clear(work, _KEPT)
            return
        if not force:
            reason = f"with another content of {', '.join(changed)}" if same else "of another recipe"
            raise UserError(f"{work} was left by an interrupted run {reason}; remove it, or use --force")
    elif not all(entry.match(temporary_pattern(found)) for entry in work.iterdir()):
        raise UserError(f"{work} is in the way, and not a run's; remove it or name another output")
    _clear(work, (RECIPE_FILE,))
    write_text(found, recipe)
    if inputs:
        write_text(work / INPUTS, json.dumps(dict(inputs)))


def _changed(work: Path, inputs: Mapping[str, str]) -> list[str]:
    """The keys whose fingerprint was another when the folder was begun; none where nobody noted them."""
    file = work / INPUTS
    before = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return [key for key, value in inputs.items() if key in before and before[key] != value]


def _clear(work: Path, keep: tuple[str, ...] = ()) -> None:
    """Removes what is not of these patterns, such as what a killed process had not finished."""
    for entry in work.iterdir():
        if any(entry.match(pattern) for pattern in keep):
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _remove(folder: Path) -> None:
    """The recipe goes last: until then the folder says that it is a run's, whenever the process is killed."""
    _clear(folder, (RECIPE_FILE,))
    shutil.rmtree(folder)


def _has_state(work: Path) -> bool:
    return any(state.name not in (JOURNAL, INPUTS) for state in work.glob(STATES))


def _swap(work: Path, output: Path) -> None:
    """Puts the finished folder into its place; an older one is there until the moment when the new one is."""
    replaced = _replaced(output)
    if output.exists() and exchange(work, output):
        os.rename(work, replaced)
    else:
        if output.exists():
            os.rename(output, replaced)
        os.rename(work, output)
    with suppress(OSError):  # there is none where the output is new
        _remove(replaced)


def _replaced(output: Path) -> Path:
    return output.with_name(f".{output.name}.replaced")


def _undo_half_a_swap(output: Path) -> None:
    """Where the system cannot exchange folders: a run killed between the two renames left the old one under its other name."""
    replaced = _replaced(output)
    ours = (replaced / RECIPE_FILE).is_file()
    if ours and not output.exists():
        os.rename(replaced, output)
        return
    with suppress(OSError):  # what a run killed while it removed the old folder had not removed
        if ours:
            _remove(replaced)
        else:
            replaced.rmdir()


def _reason(error: OSError, work: Path) -> str:
    where = error.filename or work
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"cannot write to {where}: the disk is full"
    return f"{where}: {error.strerror or error}"


#: what torch says when a process does not answer any more
_LOST = re.compile("gloo|NCCL|Connection closed|Connection reset|Timed out", re.IGNORECASE)


def process_count() -> int:
    """How many processes the launcher started, 1 without one."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main() -> bool:
    """Whether this is the process that writes and reports."""
    return process_count() == 1 or int(os.environ.get("RANK", "0")) == 0


@contextmanager
def shared_work_folder(
    output: Path, recipe: str, force: bool = False, *, inputs: Mapping[str, str] | None = None, cpu: bool = False
) -> Iterator[Path]:
    """`work_folder` of the first process; the others see the same folder, and leave it to the first one.

    Where the first one cannot have the folder, all raise its UserError. A process that dies leaves the last checkpoint,
    and the same command goes on from there. `cpu`: communicate over gloo although there is a GPU.
    """
    if process_count() == 1:
        with work_folder(output, recipe, force, inputs) as work, _ended_by_another():
            yield work
        return
    from accelerate import PartialState
    from accelerate.utils import broadcast_object_list

    # threads of a group that is still there when Python ends now and then abort a process whose work is done
    atexit.register(PartialState(cpu=cpu).destroy_process_group)
    if not is_main():
        refusal: list[str | None] = [None]
        broadcast_object_list(refusal)
        if refusal[0] is not None:
            raise UserError(refusal[0])
        with _ended_by_another():
            yield Path(os.path.abspath(output)).with_name(f"{Path(output).name}.partial")
        return
    shared = False
    try:
        with work_folder(output, recipe, force, inputs) as work:
            shared = True
            broadcast_object_list([None])
            with _ended_by_another():
                yield work
    except UserError as error:
        if not shared:
            broadcast_object_list([str(error)])
        raise


@contextmanager
def _ended_by_another() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if not _LOST.search(str(error)):
            raise
        raise UserError("another process of this run ended before its time") from error

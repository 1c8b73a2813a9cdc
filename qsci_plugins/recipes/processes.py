"""One run in several processes, as `accelerate launch` starts them: the first one writes, the others compute along."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from qsci_plugins.errors import UserError
from qsci_plugins.recipes.outputs import work_folder

__all__ = ["is_main", "process_count", "shared_work_folder"]

#: what torch says when a process does not answer any more
_LOST = re.compile("gloo|NCCL|Connection closed|Connection reset|Timed out", re.IGNORECASE)


def process_count() -> int:
    """How many processes the launcher started, 1 without one."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main() -> bool:
    """Whether this is the process that writes and reports."""
    return process_count() == 1 or int(os.environ.get("RANK", "0")) == 0


@contextmanager
def shared_work_folder(output: Path, recipe: str, force: bool = False, *, cpu: bool = False) -> Iterator[Path]:
    """`outputs.work_folder` of the first process; the others see the same folder, and leave it to the first one.

    Where the first one cannot have the folder, all raise its UserError. A process that dies leaves the last checkpoint,
    and the same command goes on from there. `cpu`: communicate over gloo although there is a GPU.
    """
    if process_count() == 1:
        with work_folder(output, recipe, force) as work, _one_dies_with_the_others():
            yield work
        return
    from accelerate import PartialState
    from accelerate.utils import broadcast_object_list

    PartialState(cpu=cpu)
    if not is_main():
        refusal: list[str | None] = [None]
        broadcast_object_list(refusal)
        if refusal[0] is not None:
            raise UserError(refusal[0])
        with _one_dies_with_the_others():
            yield Path(os.path.abspath(output)).with_name(f"{Path(output).name}.partial")
        return
    told = False
    try:
        with work_folder(output, recipe, force) as work:
            told = True
            broadcast_object_list([None])
            with _one_dies_with_the_others():
                yield work
    except UserError as error:
        if not told:
            broadcast_object_list([str(error)])
        raise


@contextmanager
def _one_dies_with_the_others() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if not _LOST.search(str(error)):
            raise
        raise UserError("another process of this run ended before its time") from error

"""What an unfinished `qsci upscale` of several images has written, so that the same command goes on there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from qsci_plugins.errors import UserError
from qsci_plugins.files import locked

__all__ = ["Record"]


class Record:
    """The hidden file in the output `folder` that names the images written so far, while there are others to write.

    `origin` is what decides the result: the inputs, the network and its options, as plain values. A command of another origin
    has another record.
    """

    def __init__(self, folder: Path, origin: Any) -> None:
        digest = hashlib.sha256(json.dumps(origin, sort_keys=True).encode()).hexdigest()[:16]
        self.file = folder / f".upscaled-{digest}.jsonl"

    def finished(self, files: Mapping[Path, Path]) -> set[Path]:
        """Those of `files` (targets by source) that are written, and that nobody has changed since, nor their sources."""
        known = set()
        with suppress(OSError, ValueError):
            known = set(self.file.read_text(encoding="utf-8").splitlines())
        return {source for source, target in files.items() if _line(source, target) in known}

    @contextmanager
    def kept(self, finished: Iterable[tuple[Path, Path]]) -> Iterator[None]:
        """Begins it with the sources and targets that are finished. It is removed at the end, unless by an exception after
        which there is something to go on from.

        Raises UserError while another process has it, and where the folder cannot be written.
        """
        folder = self.file.parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = ExitStack()
            lock.enter_context(locked(self.file, f"another process is writing {folder}; wait, or name another output"))
        except OSError as error:
            raise UserError(f"cannot write into the folder {folder}: {error.strerror}") from error
        with lock:
            write = "".join(f"{_line(*each)}\n" for each in finished)
            self.file.write_text(write, encoding="utf-8")
            try:
                yield
            except BaseException:
                if not self.file.stat().st_size:
                    self.file.unlink()
                raise
            self.file.unlink()

    def add(self, source: Path, target: Path) -> None:
        """Notes that `target` is whole: a line that survives the process."""
        with self.file.open("a", encoding="utf-8") as stream:
            stream.write(f"{_line(source, target)}\n")


def _line(source: Path, target: Path) -> str | None:
    """The name of a target, and what changes with its content and its source's; None where one is missing."""
    try:
        states = [[found.st_size, found.st_mtime_ns] for found in (source.stat(), target.stat())]
    except OSError:
        return None
    return json.dumps([target.name, *states])

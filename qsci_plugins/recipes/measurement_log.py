"""What was measured image by image, appended to a file at once, so that an interrupted benchmark goes on."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from qsci_plugins.errors import UserError
from qsci_plugins.evaluation.benchmark import ImageResult

__all__ = ["MeasurementLog", "open_log"]


class MeasurementLog:
    """Results by the fingerprints of a form and of an image. One JSON object per line; use `open_log`."""

    def __init__(self, stream: IO[str], known: dict[tuple[str, str], ImageResult]) -> None:
        self._stream = stream
        self._known = known

    def get(self, form: str, image: str) -> ImageResult | None:
        """What was measured of this form on this image; None where it was not yet."""
        return self._known.get((form, image))

    def add(self, form: str, image: str, result: ImageResult, **about: Any) -> None:
        """Appends a line, which survives the process; `about` is for readers of the file."""
        self._known[form, image] = result
        decibels = result.psnr_y if math.isfinite(result.psnr_y) else None
        line = {"form": form, "image": image, **about, "name": result.name, "psnr_y": decibels, "ssim": result.ssim}
        self._stream.write(json.dumps({**line, "extras": result.extras}, allow_nan=False) + "\n")
        self._stream.flush()


@contextmanager
def open_log(file: Path) -> Iterator[MeasurementLog]:
    """The log in `file`, made where there is none. A last line that a killed process left half written is cut off.

    Raises UserError for a file of another kind, and while another process writes it.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a+", encoding="utf-8") as stream:
        _lock(stream, file)
        stream.seek(0)
        text = stream.read()
        whole = text[: text.rfind("\n") + 1]
        if len(whole) < len(text):
            os.truncate(file, len(whole.encode("utf-8")))
        known: dict[tuple[str, str], ImageResult] = {}
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                known.update([_parsed(json.loads(line))])
            except (ValueError, KeyError, TypeError):
                raise UserError(f"{file}: line {number} is no measurement; remove the file to measure again") from None
        stream.seek(0, os.SEEK_END)
        yield MeasurementLog(stream, known)


def _parsed(line: dict[str, Any]) -> tuple[tuple[str, str], ImageResult]:
    decibels = math.inf if line["psnr_y"] is None else float(line["psnr_y"])
    return (line["form"], line["image"]), ImageResult(line["name"], decibels, float(line["ssim"]), line["extras"])


def _lock(stream: IO[str], file: Path) -> None:
    """One process per file, where the system has advisory locks; a killed process leaves none behind."""
    try:
        import fcntl
    except ImportError:  # Windows
        return
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(f"another process is writing {file}; wait for it, or name another output") from None

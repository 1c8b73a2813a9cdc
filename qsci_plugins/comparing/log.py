"""What was measured piece by piece, appended to a file at once, so that an interrupted benchmark goes on."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from qsci_plugins.errors import UserError
from qsci_plugins.files import locked
from qsci_plugins.pipeline.task import PieceResult

__all__ = ["MeasurementLog", "open_log"]


class MeasurementLog:
    """Results by the fingerprints of a form and of a piece (an image or scene). One JSON object per line; use `open_log`."""

    def __init__(self, stream: IO[str], known: dict[tuple[str, str], PieceResult]) -> None:
        self._stream = stream
        self._known = known

    def get(self, form: str, piece: str) -> PieceResult | None:
        """What was measured of this form on this piece; None where it was not yet."""
        return self._known.get((form, piece))

    def add(self, form: str, piece: str, result: PieceResult, **about: Any) -> None:
        """Appends a line, which survives the process; `about` is for readers of the file."""
        self._known[form, piece] = result
        line = {
            "form": form,
            "piece": piece,
            **about,
            "name": result.name,
            "psnr": result.psnr if math.isfinite(result.psnr) else None,
            "ssim": result.ssim,
            "fab": result.fab,
            "extras": dict(result.extras),
        }
        self._stream.write(json.dumps(line, allow_nan=False) + "\n")
        self._stream.flush()


@contextmanager
def open_log(file: Path) -> Iterator[MeasurementLog]:
    """The log in `file`, made where there is none. A last line that a killed process left half written is cut off.

    Raises UserError for a file of another kind, and while another process writes it.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    busy = f"another process is writing {file}; wait for it, or name another output"
    with locked(file, busy), file.open("a+", encoding="utf-8") as stream:
        stream.seek(0)
        text = stream.read()
        whole = text[: text.rfind("\n") + 1]
        if len(whole) < len(text):
            os.truncate(file, len(whole.encode("utf-8")))
        known: dict[tuple[str, str], PieceResult] = {}
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                known.update([_parsed(json.loads(line))])
            except (ValueError, KeyError, TypeError, AttributeError):
                raise UserError(f"{file}: line {number} is no measurement; remove the file to measure again") from None
        stream.seek(0, os.SEEK_END)
        yield MeasurementLog(stream, known)


def _parsed(line: dict[str, Any]) -> tuple[tuple[str, str], PieceResult]:
    extras = dict(line["extras"])
    if "image" in line:  # written by version 0.1, which knew images alone
        key, decibels, fab = (line["form"], line["image"]), line["psnr_y"], extras.pop("fab", None)
    else:
        key, decibels, fab = (line["form"], line["piece"]), line["psnr"], line["fab"]
    psnr = math.inf if decibels is None else float(decibels)
    ssim = None if line["ssim"] is None else float(line["ssim"])
    return key, PieceResult(line["name"], psnr, ssim, fab, extras)

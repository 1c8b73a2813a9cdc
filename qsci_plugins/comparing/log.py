"""What was measured image by image, appended to a file at once, so that an interrupted benchmark goes on."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from qsci_plugins.architectures.network import Network
from qsci_plugins.errors import UserError
from qsci_plugins.evaluation.benchmark import BenchmarkImage, ImageResult
from qsci_plugins.files import locked
from qsci_plugins.machine import describe_machine

__all__ = [
    "MeasurementLog",
    "environment_fingerprint",
    "file_fingerprint",
    "fingerprint",
    "image_fingerprint",
    "network_fingerprint",
    "open_log",
]


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
    busy = f"another process is writing {file}; wait for it, or name another output"
    with locked(file, busy), file.open("a+", encoding="utf-8") as stream:
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


def fingerprint(*parts: Any) -> str:
    """16 hexadecimal digits of plain values (as JSON)."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode("utf-8")).hexdigest()[:16]


def file_fingerprint(path: Path) -> str:
    """Of a file's bytes, or of all files below a folder with their names."""
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        return fingerprint([[file.relative_to(path).as_posix(), file_fingerprint(file)] for file in files])
    return _digest(path.read_bytes())


def network_fingerprint(network: Network) -> str:
    """Of a float network: its description and every tensor."""
    tensors = {name: _digest(tensor.cpu().contiguous().numpy()) for name, tensor in network.module.state_dict().items()}
    about = [network.architecture, network.scale, network.value_range, network.size_multiple, str(network.settings)]
    return fingerprint(about, tensors)


def image_fingerprint(image: BenchmarkImage, scale: int) -> str:
    """Of an HR image with its LR image, or with how that is made."""
    high = file_fingerprint(image.high) if isinstance(image.high, Path) else _digest(np.ascontiguousarray(image.high))
    return fingerprint(scale, high, None if image.low is None else file_fingerprint(image.low))


def environment_fingerprint() -> str:
    """Of the processor and the packages that compute: another one may round differently."""
    machine = describe_machine()
    return fingerprint({key: value for key, value in machine.items() if key not in ("cores", "memory_gib")})


def _digest(content: Any) -> str:
    return hashlib.sha256(content).hexdigest()

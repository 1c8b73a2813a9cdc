"""Short names of whatever decides a measurement, so that the same one is not made twice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from qsci_plugins.architectures.network import Network
from qsci_plugins.machine import describe_machine

__all__ = [
    "content_fingerprint",
    "environment_fingerprint",
    "file_fingerprint",
    "fingerprint",
    "network_fingerprint",
]


def fingerprint(*parts: Any) -> str:
    """16 hexadecimal digits of plain values (as JSON)."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode("utf-8")).hexdigest()[:16]


def file_fingerprint(path: Path) -> str:
    """Of a file's bytes, or of all files below a folder with their names."""
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        return fingerprint([[file.relative_to(path).as_posix(), file_fingerprint(file)] for file in files])
    return _digest(path.read_bytes())


def content_fingerprint(content: Iterable[Any]) -> str:
    """Of files, arrays and plain values, such as a task says that a piece consists of."""
    return fingerprint(*map(_content, content))


def network_fingerprint(network: Network) -> str:
    """Of a float network: its description and every tensor."""
    tensors = {name: _digest(tensor.cpu().contiguous().numpy()) for name, tensor in network.module.state_dict().items()}
    about = [network.architecture, network.scale, network.value_range, network.size_multiple, str(network.settings)]
    return fingerprint(about, tensors)


def environment_fingerprint() -> str:
    """Of the processor and the packages that compute: another one may round differently."""
    machine = describe_machine()
    return fingerprint({key: value for key, value in machine.items() if key not in ("cores", "memory_gib")})


def _content(part: Any) -> Any:
    if isinstance(part, Path):
        return file_fingerprint(part)
    return _digest(np.ascontiguousarray(part)) if isinstance(part, np.ndarray) else part


def _digest(content: Any) -> str:
    return hashlib.sha256(content).hexdigest()

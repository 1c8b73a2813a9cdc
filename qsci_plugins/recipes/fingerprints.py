"""Short names for contents: what has the same fingerprint gives the same measurement."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from qsci_plugins.architectures.network import Network
from qsci_plugins.evaluation.benchmark import BenchmarkImage
from qsci_plugins.recipes.machine import describe_machine

__all__ = ["environment_fingerprint", "file_fingerprint", "fingerprint", "image_fingerprint", "network_fingerprint"]


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

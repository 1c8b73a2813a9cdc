"""Finds the outputs of the papers' published code that decide fidelity."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

__all__ = ["data_folder", "golden_files", "load"]

_REPOSITORY = Path(__file__).resolve().parent.parent


def golden_folder() -> Path:
    return Path(os.environ.get("QSCI_GOLDEN", _REPOSITORY.parent / "shared" / "golden"))


def data_folder() -> Path:
    """Real images, videos and networks; a test that needs them skips where the folder is absent."""
    folder = Path(os.environ.get("QSCI_DATA", _REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no shared data at {folder}; set QSCI_DATA")
    return folder


def golden_files(pattern: str) -> list[Any]:
    """One pytest parameter for every file `pattern`.npz; a single skipping one where there is none."""
    files = sorted(golden_folder().glob(f"{pattern}.npz"))
    if not files:
        reason = f"no {pattern}.npz in {golden_folder()}; set QSCI_GOLDEN to the shared golden folder"
        return [pytest.param(None, marks=pytest.mark.skip(reason=reason), id="absent")]
    return [pytest.param(file, id=file.stem) for file in files]


def load(file: Path) -> dict[str, np.ndarray]:
    """All arrays of one golden file by name."""
    with np.load(file, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}

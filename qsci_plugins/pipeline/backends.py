"""The backends by name."""

from __future__ import annotations

import importlib
from typing import Any

from qsci_plugins.evaluation.baselines import quiet

__all__ = ["backend"]


def backend(name: str) -> Any:
    """What a backend offers ("nncf" or "brevitas"): `apply`, `quantize`, `save` and `load`."""
    with quiet():
        return importlib.import_module(f"qsci_plugins.{name}.backend")

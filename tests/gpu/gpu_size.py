"""Whether the suite for a GPU is to run in small, on the CPU."""

from __future__ import annotations

import os

__all__ = ["SMALL"]

SMALL = os.environ.get("QSCI_GPU_TESTS") == "cpu"

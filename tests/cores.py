"""Tests that need more than one processor core."""

from __future__ import annotations

import os

import pytest

__all__ = ["CORES", "TWO_CORES"]

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

TWO_CORES = pytest.mark.skipif(CORES < 2, reason="OpenVINO makes no more streams than it sees cores, here one")

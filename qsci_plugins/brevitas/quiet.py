"""Imports Brevitas without its warning that an optional kernel, which nothing here uses, is not installed."""

from __future__ import annotations

import warnings

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message="fast_hadamard_transform")
    import brevitas.graph.equalize  # noqa: F401

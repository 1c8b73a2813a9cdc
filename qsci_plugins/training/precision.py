"""Whether training computes in bf16."""

from __future__ import annotations

from pathlib import Path

import torch

__all__ = ["uses_bf16"]


def uses_bf16(precision: str) -> bool:
    """`precision` is "float32", "bf16", or "auto": bf16 where the CPU computes in it natively."""
    if precision == "auto":
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()) and "avx512_bf16" in _cpu_flags()
    return precision == "bf16"


def _cpu_flags() -> str:
    try:
        return Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""

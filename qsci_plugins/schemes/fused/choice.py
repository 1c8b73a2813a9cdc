"""Whether there are kernels for a tensor, and what happens where they fail."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from qsci_plugins.errors import UserError

__all__ = ["fused_functions", "unless_triton_fails"]

#: the functions that quantize on a GPU in one kernel; False once they are known not to work here
_functions: Any = None


def fused_functions(x: Tensor) -> Any:
    """The module `quantizing`, for tensors on a GPU outside of tracing and compiling; None where it cannot work.

    Why it cannot is said once. QSCI_PLUGINS_FUSED=0 in the environment switches it off.
    """
    global _functions
    # a subclass of Tensor, such as the pretended ones of a FakeTensorMode, has no memory that a kernel could read
    if _functions is False or type(x) not in (Tensor, nn.Parameter):
        return None
    if torch.jit.is_tracing() or torch.compiler.is_compiling():
        return None
    if _functions is None:
        _functions = False
        if os.environ.get("QSCI_PLUGINS_FUSED") != "0":
            try:
                from qsci_plugins.schemes.fused import quantizing  # Triton is imported where there is a GPU alone

                _functions = quantizing
            except Exception as error:
                _say_why(error)
    return _functions or None


def unless_triton_fails(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function of `fused_functions` gives; None where Triton fails, which is said once and not tried again."""
    try:
        return function(*arguments)
    except (UserError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        _say_why(error)
        return None


def _say_why(error: Exception) -> None:
    global _functions
    _functions = False
    reason = str(error).strip().splitlines() or [""]
    warnings.warn(
        f"quantization runs as plain operations on this GPU, several times slower: Triton failed with"
        f" {type(error).__name__}: {reason[0]}",
        stacklevel=3,
    )

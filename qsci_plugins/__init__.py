"""Low-bit, content-adaptive quantization of image restoration networks for NNCF and Brevitas."""

from __future__ import annotations

from qsci_plugins.errors import UserError

__version__ = "0.1.0"

__all__ = ["UserError", "__version__"]

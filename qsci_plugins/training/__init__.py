"""Float training, and training of quantized networks with labels or towards their float selves."""

from __future__ import annotations

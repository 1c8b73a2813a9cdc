"""Stock networks that enlarge images."""

from __future__ import annotations

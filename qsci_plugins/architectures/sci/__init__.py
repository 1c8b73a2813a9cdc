"""Stock networks that reconstruct video from snapshot measurements."""

from __future__ import annotations

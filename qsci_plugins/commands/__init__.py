"""One file per command of `qsci`; each imports what it needs only when it runs."""

from __future__ import annotations

"""What runs, benchmarks and sweeps show to people: tables and pictures."""

from __future__ import annotations

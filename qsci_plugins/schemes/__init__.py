"""The published methods as plain torch modules: quantizers, where they go in a network, and how they are fitted."""

from __future__ import annotations

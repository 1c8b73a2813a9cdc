"""What every test needs before NNCF is imported."""

from __future__ import annotations

import os

# NNCF compiles its CPU extension at first use, which takes minutes on a busy machine; it gives up after 60 seconds
os.environ.setdefault("NNCF_EXTENSION_LOAD_TIMEOUT", "900")

"""The environment of every test, before torch, OpenVINO and NNCF are imported."""

from __future__ import annotations

import environment  # noqa: F401  what it sets must come first

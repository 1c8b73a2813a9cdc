"""The environment of every test, before torch, OpenVINO and NNCF are imported."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import environment  # noqa: F401  what it sets must come first
import pytest


@pytest.fixture(autouse=True)
def _no_content_left_behind() -> Iterator[None]:
    """What a test says of an image, quantizers of the next test must not read."""
    yield
    if (content := sys.modules.get("qsci_plugins.schemes.content")) is not None:
        content.set_content(None)

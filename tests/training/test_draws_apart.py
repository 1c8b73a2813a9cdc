"""Starts the tests of processes that draw in a process of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_draws() -> None:
    file = Path(__file__).with_name("test_draws.py")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", "0", "-m", "alone", str(file)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout

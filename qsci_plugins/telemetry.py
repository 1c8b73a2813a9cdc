"""OpenVINO, NNCF and onnxruntime report their use and keep an identity in the home folder; our commands do neither."""

from __future__ import annotations

import os
import runpy
import sys

__all__ = ["module_command", "switch_off_telemetry"]


def switch_off_telemetry() -> None:
    """Makes OpenVINO's tools and NNCF, imported after this call, find no package to report with, and onnxruntime keep still.

    The former take the stand-ins that they have for such installations. Without effect where they were imported before,
    as in a program that uses OpenVINO itself.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


def module_command(module: str, *arguments: str) -> list[str]:
    """The command that does what `python -m module arguments` does, telemetry switched off before it imports anything."""
    return [sys.executable, "-m", __name__, module, *arguments]


if __name__ == "__main__":
    switch_off_telemetry()
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)

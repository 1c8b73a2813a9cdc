"""A run is short to read: a tiny AdaBM run executes code in few files of the package."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

MOST_FILES = 75

#: writes "file kind" a line, kind "body" where a module or class body ran, "function" where a function of it did
FOLLOW = r"""
import inspect
import sys
import threading

package, told = sys.argv[1:]
ran = set()


def note(code):
    if code.co_filename.startswith(package):
        ran.add((code.co_filename, "function" if code.co_flags & inspect.CO_OPTIMIZED else "body"))


if sys.version_info >= (3, 12):
    def started(code, offset):
        note(code)
        return sys.monitoring.DISABLE

    sys.monitoring.use_tool_id(sys.monitoring.COVERAGE_ID, "reached")
    sys.monitoring.register_callback(sys.monitoring.COVERAGE_ID, sys.monitoring.events.PY_START, started)
    sys.monitoring.set_events(sys.monitoring.COVERAGE_ID, sys.monitoring.events.PY_START)
else:
    def called(frame, event, argument):
        note(frame.f_code)

    threading.settrace(called)
    sys.settrace(called)

import qsci_plugins

qsci_plugins.run("tiny.yaml", "run")
with open(told, "w", encoding="utf-8") as out:
    out.writelines(f"{file[len(package):]} {kind}\n" for file, kind in sorted(ran))
"""


def test_a_tiny_run_executes_code_in_few_files(tiny: Path) -> None:
    """Calibrated and measured, with nothing to evaluate and no export, which have entrances of their own."""
    import qsci_plugins

    package = f"{Path(qsci_plugins.__file__).parent}{os.sep}"
    told = tiny.parent / "reached.txt"
    command = [sys.executable, "-c", FOLLOW, package, str(told)]
    ended = subprocess.run(command, cwd=tiny.parent, capture_output=True, text=True, timeout=600)
    assert ended.returncode == 0, ended.stderr
    assert (tiny.parent / "run" / "metrics.json").is_file()
    lines = [line.rsplit(" ", 1) for line in told.read_text(encoding="utf-8").splitlines()]
    files = sorted({file for file, _ in lines})
    worked = {file for file, kind in lines if kind == "function"}
    assert os.path.join("schemes", "adabm.py") in worked
    listing = "\n".join(
        f"{file}{'' if file in worked else '   (imported, but no function of it ran)'}" for file in files
    )
    assert len(files) <= MOST_FILES, f"{len(files)} files, functions of {len(worked)}:\n{listing}"

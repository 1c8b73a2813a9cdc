"""A run is short to follow: a tiny AdaBM run executes code in few files of the package."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

MOST_FILES = 75

#: writes the files of which a function or method ran (importing runs the bodies of modules and classes alone)
FOLLOW = r"""
import inspect
import sys
import threading

package, listing = sys.argv[1:]
ran = set()


def note(code):
    if code.co_filename.startswith(package) and code.co_flags & inspect.CO_OPTIMIZED:
        ran.add(code.co_filename)


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

qsci_plugins.run("tiny.yaml", "run", overrides=["train={steps: 2}", "export.openvino={mode: routed, tile: [32, 32]}"])
with open(listing, "w", encoding="utf-8") as out:
    out.writelines(f"{file[len(package):]}\n" for file in sorted(ran))
"""


def test_a_tiny_run_executes_code_in_few_files(tiny: Path) -> None:
    """Calibrated, fine-tuned, exported, timed and reported; before the pipeline was one, it took 80 files."""
    import qsci_plugins

    package = f"{Path(qsci_plugins.__file__).parent}{os.sep}"
    listing = tiny.parent / "reached.txt"
    command = [sys.executable, "-c", FOLLOW, package, str(listing)]
    ended = subprocess.run(command, cwd=tiny.parent, capture_output=True, text=True, timeout=600, check=False)
    assert ended.returncode == 0, ended.stderr
    assert (tiny.parent / "run" / "model" / "manifest.json").is_file()
    files = listing.read_text(encoding="utf-8").splitlines()
    assert os.path.join("schemes", "adabm.py") in files
    assert len(files) <= MOST_FILES, f"{len(files)} files:\n" + "\n".join(files)

"""A run is short to read: a tiny AdaBM run executes code in few files of the package."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

MOST_FILES = 75

RECIPE = """version: 1
model: {architecture: edsr, scale: 2, settings: {blocks: 1, width: 8}}
scheme: {name: adabm, weight_bits: 4, activation_bits: 4}
place: {targets: ["body.*"], eight_bit: ["head.*", "tail.*"]}
calibrate: {count: 4, patch: 16, batch: 4}
evaluate: [{set: Tiny}]
export: {openvino: {mode: static, tile: [32, 32]}}
"""

#: writes "file kind" a line, kind "body" where a module or class body ran, "function" where a function of it did
FOLLOW = r"""
import inspect
import sys
import threading

package, told, arguments = sys.argv[1], sys.argv[2], sys.argv[3:]
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

from qsci_plugins.cli import main

code = main(arguments)
with open(told, "w", encoding="utf-8") as out:
    out.writelines(f"{file[len(package):]} {kind}\n" for file, kind in sorted(ran))
sys.exit(code)
"""


def test_a_tiny_run_executes_code_in_few_files(tmp_path: Path) -> None:
    import qsci_plugins

    package = f"{Path(qsci_plugins.__file__).parent}{os.sep}"
    (tmp_path / "data" / "Tiny").mkdir(parents=True)
    image = np.random.default_rng(0).integers(0, 256, (48, 48, 3), np.uint8)
    Image.fromarray(image).save(tmp_path / "data" / "Tiny" / "noise.png")
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    command = [sys.executable, "-c", FOLLOW, package, "reached.txt", "run", "tiny.yaml", "-o", "run", "--data", "data"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert ended.returncode == 0, ended.stderr
    lines = [line.rsplit(" ", 1) for line in (tmp_path / "reached.txt").read_text().splitlines()]
    worked = {file for file, kind in lines if kind == "function"}
    files = sorted({file for file, _ in lines})
    assert "schemes/adabm.py".replace("/", os.sep) in worked
    listing = "\n".join(
        f"{file}{'' if file in worked else '   (imported, but no function of it ran)'}" for file in files
    )
    assert len(files) <= MOST_FILES, f"{len(files)} files:\n{listing}"

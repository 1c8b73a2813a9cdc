"""Nothing that a stranger hands over reads what it should not, hangs, or shows a traceback; see SECURITY.md."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

WORKER = Path(__file__).with_name("hostile_worker.py")
#: seconds that a case may take, on a machine with other work; and the first one, which imports what it needs
LIMIT, FIRST_LIMIT = 60, 180
GOOD = ("right", "refused")


def outcomes(work: Path, seed: int, size: int, sample: int = 0) -> list[dict[str, Any]]:
    """What became of every case, also of those that hang or end the process that they are read in."""
    from hostile_worker import make_models

    if not (work / "models").is_dir():
        make_models(work / "models")
    found: list[dict[str, Any]] = []
    first = 0
    while True:
        last, ended = _from(first, work, seed, size, sample, found)
        if ended:
            return found
        first = last + 1


def _from(first: int, work: Path, seed: int, size: int, sample: int, found: list[dict[str, Any]]) -> tuple[int, bool]:
    """Runs cases from `first` on in one process; the number of the last one that began, and whether all are done."""
    arguments = [str(value) for value in (WORKER, work, seed, size, sample, first)]
    root = Path(__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), str(root / "tests")])}
    process = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=work,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    lines: queue.Queue[str] = queue.Queue()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.put(line)
        lines.put("")

    threading.Thread(target=read, daemon=True).start()
    begun, limit = first - 1, FIRST_LIMIT
    try:
        while True:
            try:
                line = lines.get(timeout=limit)
            except queue.Empty:
                found.append({"kind": "hang", "case": begun, "seconds": limit})
                return begun, False
            if not line:
                if process.wait() == 0:
                    return begun, True
                assert begun >= first, "the process of the cases did not start"
                found.append({"kind": "crash", "case": begun, "said": f"exit code {process.returncode}"})
                return begun, False
            said = json.loads(line)
            if "begins" in said:
                begun, limit = first + said["begins"], LIMIT if said["begins"] else FIRST_LIMIT
            else:
                found.append({**said, "case": begun})
    finally:
        process.kill()
        process.wait()


def bad(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [outcome for outcome in found if outcome["kind"] not in GOOD]


def test_a_sample_of_hostile_files(tmp_path: Path) -> None:
    found = outcomes(tmp_path, seed=1, size=300, sample=60)
    assert len(found) == 60
    assert not bad(found)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 11))
def test_a_thousand_hostile_files(tmp_path: Path, seed: int) -> None:
    found = outcomes(tmp_path, seed, size=1000)
    print(Counter((outcome.get("group"), outcome["kind"]) for outcome in found))
    assert len(found) >= 1000
    assert not bad(found)

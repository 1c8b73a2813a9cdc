"""A process that takes too long, crashes or is left alone is ended, and says where it was."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from qsci_plugins.pipeline.child_process import KilledError, child_events
from qsci_plugins.progress import Advance, Progress


class Seen(Progress):
    def __init__(self) -> None:
        self.steps: list[Any] = []

    @contextmanager
    def stage(self, title: str, total: int) -> Iterator[Advance]:
        yield lambda done, text="": self.steps.append((title, total, done, text))
        self.steps.append("end")


def run(place: Path, what: str, limit: float | None, events: list[Any], progress: Progress | None = None) -> None:
    request = {"what": what, "limit": limit}
    events.extend(child_events("obedient_child", place, request, progress or Progress()))


def is_alive(process: int) -> bool:
    file = Path(f"/proc/{process}/stat")
    return file.is_file() and file.read_text().rpartition(")")[2].split()[0] != "Z"


def all_end(processes: list[int]) -> bool:
    """A killed process may take a moment."""
    until = time.monotonic() + 10
    while any(is_alive(process) for process in processes) and time.monotonic() < until:
        time.sleep(0.05)
    return not any(is_alive(process) for process in processes)


def test_events_come_in_order_and_progress_is_shown(tmp_path: Path) -> None:
    events: list[Any] = []
    seen = Seen()
    run(tmp_path, "work", None, events, seen)
    assert [event.get("number") for event in events] == [7, None]
    assert seen.steps == [("work", 2, 1, "half"), "end"]


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are looked for in /proc")
def test_a_step_that_exceeds_its_limit_ends_with_all_that_it_began(tmp_path: Path) -> None:
    events: list[Any] = []
    start = time.monotonic()
    with pytest.raises(KilledError, match=r"^took longer than 1 s$") as killed:
        run(tmp_path, "sleep", 1, events)
    assert killed.value.step == "first"
    assert time.monotonic() - start < 60
    assert len(events) == 2
    assert all_end([event["process"] for event in events])


@pytest.mark.parametrize(("what", "reason"), [("crash", r"crashes \(SIGSEGV\)"), ("exit", "ends with exit status 0")])
def test_a_process_that_ends_by_itself_says_in_which_step(tmp_path: Path, what: str, reason: str) -> None:
    with pytest.raises(KilledError, match=f"^{reason}$") as killed:
        run(tmp_path, what, None, [])
    assert killed.value.step == "first"


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are looked for in /proc")
def test_a_process_ends_when_nobody_wants_its_events_any_more(tmp_path: Path) -> None:
    events = child_events("obedient_child", tmp_path, {"what": "sleep", "limit": None}, Progress())
    processes = [next(events)["process"], next(events)["process"]]
    assert all(is_alive(process) for process in processes)
    events.close()
    assert all_end(processes)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are looked for in /proc")
def test_a_process_ends_with_its_parent(tmp_path: Path) -> None:
    code = (
        "import os, pathlib\n"
        "from qsci_plugins.pipeline.child_process import child_events\n"
        "from qsci_plugins.progress import Progress\n"
        f"events = child_events('obedient_child', pathlib.Path({str(tmp_path)!r}), dict(what='sleep', limit=None), Progress())\n"
        "print(next(events)['process'], next(events)['process'], flush=True); os._exit(0)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    processes = [int(process) for process in done.stdout.split()]
    assert len(processes) == 2
    assert all_end(processes)

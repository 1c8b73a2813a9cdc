"""Work in a child process, which is ended where a step of it takes too long or where nobody waits for it any more."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from qsci_plugins.progress import Advance, Progress
from qsci_plugins.telemetry import module_command

__all__ = ["EventProgress", "Events", "KilledError", "child_events"]

_STEP, _REQUEST = "step", "request.json"
#: seconds between two looks at how long a step has taken
_LOOK = 0.1


class KilledError(Exception):
    """The child was ended, by us or by a crash, in the step of a name (None: in none); `signal` is that of a crash."""

    def __init__(self, step: str | None, reason: str, signal: str | None = None) -> None:
        self.step = step
        self.reason = reason
        self.signal = signal
        super().__init__(reason)


class Events:
    """What the child reports to its parent, which waits: events, and which step it is at.

    A step is passed through a file, since a pipe would wake the parent just before something is timed.
    """

    def __init__(self, place: Path) -> None:
        self.request: dict[str, Any] = json.loads((place / _REQUEST).read_text(encoding="utf-8"))
        self._step = os.open(place / _STEP, os.O_RDWR | os.O_CREAT)
        self._events = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)  # whatever else prints is no event
        threading.Thread(target=_end_with_parent, daemon=True).start()

    def send(self, **event: Any) -> None:
        """Reports an event of values that JSON has."""
        self._events.write(json.dumps(event) + "\n")
        self._events.flush()

    def step(self, name: str | None, limit: float | None = None) -> None:
        """Begins a step, which may take `limit` seconds; None for what belongs to no name, or has no limit."""
        text = json.dumps([name, limit, time.monotonic()]).ljust(255) + "\n"
        os.lseek(self._step, 0, os.SEEK_SET)
        os.write(self._step, text.encode())


class EventProgress(Progress):
    """Reports notes and stages as events, which the parent shows as its own progress."""

    def __init__(self, events: Events) -> None:
        self._events = events

    def note(self, text: str) -> None:
        self._events.send(note=text)

    @contextmanager
    def stage(self, title: str, total: int) -> Iterator[Advance]:
        self._events.send(stage=[title, total])
        try:
            yield lambda done, text="", total=None: self._events.send(advance=[done, text, total])
        finally:
            self._events.send(end=True)


def child_events(
    module: str, place: Path, request: Mapping[str, Any], progress: Progress
) -> Generator[dict[str, Any], None, None]:
    """Yields the events of `python -m module place`, whose `Events` has the request, until it ends.

    Its progress is shown instead. The process and those that it began are killed when a step exceeds
    its limit, and when the iteration is closed early (Ctrl-C). Raises KilledError then, where the process crashes, and
    where it ends before an event `done`.
    """
    (place / _STEP).unlink(missing_ok=True)
    (place / _REQUEST).write_text(json.dumps(request), encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
    process = subprocess.Popen(
        module_command(module, str(place)),
        env=environment,
        stdin=subprocess.PIPE,  # closed when we end, however that is
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is for us to handle
    )
    lines: queue.Queue[bytes] = queue.Queue()
    reader = threading.Thread(target=_read, args=(process, lines), daemon=True)
    reader.start()
    shown: list[Any] = []
    exceeded: KilledError | None = None
    done = False
    try:
        while True:
            try:
                line = lines.get(timeout=_LOOK)
            except queue.Empty:
                exceeded = exceeded or _exceeded(place)
                if exceeded is not None:
                    _kill(process)
                continue
            if not line.endswith(b"\n"):  # the end, perhaps in the midst of an event
                break
            event = json.loads(line)
            done = done or "done" in event
            if not _show(event, progress, shown):
                yield event
        code = process.wait()
    finally:
        _kill(process)
        reader.join()
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            pipe.close()
        while shown:
            shown.pop()[0].__exit__(None, None, None)
    if exceeded is not None:
        raise exceeded
    if code < 0:
        name = signal.Signals(-code).name
        raise KilledError(_step(place)[0], f"crashes ({name})", name)
    if code or not done:
        raise KilledError(_step(place)[0], f"ends with exit status {code}")


def _show(event: Mapping[str, Any], progress: Progress, shown: list[Any]) -> bool:
    """Whether an event is one of progress; `shown` are the stages that are open, each with its function."""
    if "note" in event:
        progress.note(event["note"])
    elif "stage" in event:
        stage = progress.stage(*event["stage"])
        shown.append((stage, stage.__enter__()))
    elif "advance" in event:
        done, text, total = event["advance"]
        shown[-1][1](done, text, **({} if total is None else {"total": total}))
    elif "end" in event:
        shown.pop()[0].__exit__(None, None, None)
    else:
        return False
    return True


def _step(place: Path) -> tuple[str | None, float | None, float]:
    try:
        name, limit, start = json.loads((place / _STEP).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # none has begun, or one is just being written
        return None, None, 0.0
    return name, limit, start


def _exceeded(place: Path) -> KilledError | None:
    name, limit, start = _step(place)
    if limit is None or time.monotonic() - start <= limit:
        return None
    return KilledError(name, f"took longer than {limit:g} s")


def _read(process: subprocess.Popen[bytes], lines: queue.Queue[bytes]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        lines.put(line)
    lines.put(b"")


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Ends it and what it began, where it has not ended."""
    if process.poll() is not None:
        return
    if hasattr(os, "killpg"):
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()


def _end_with_parent() -> None:
    while os.read(0, 1):  # not sys.stdin, whose lock would be held when Python ends
        pass
    if hasattr(os, "killpg"):
        os.killpg(0, signal.SIGKILL)
    os._exit(1)

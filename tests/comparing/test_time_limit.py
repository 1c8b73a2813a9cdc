"""Work that takes too long is left, and what it had changed about signals is as before."""

from __future__ import annotations

import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from qsci_plugins.comparing.time_limit import TimeLimitExceeded, within


def test_work_in_time_returns_its_result() -> None:
    handler = signal.getsignal(signal.SIGALRM)
    assert within(5, lambda: 7) == within(None, lambda: 7) == 7
    assert signal.getsignal(signal.SIGALRM) is handler
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


def test_work_beyond_the_limit_is_left_though_it_handles_errors() -> None:
    steps: list[int] = []

    def work() -> None:
        for step in range(600):
            try:
                time.sleep(0.1)
            except Exception:
                steps.append(-1)
            steps.append(step)

    with pytest.raises(TimeLimitExceeded, match=r"^took longer than 0.35 s$"):
        within(0.35, work)
    assert 0 < len(steps) < 20
    assert -1 not in steps


def test_errors_of_the_work_are_its_own() -> None:
    with pytest.raises(ZeroDivisionError):
        within(5, lambda: 1 / 0)
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


def test_an_import_ends_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "slow_to_import.py").write_text("import time\ntime.sleep(0.5)\nvalue = 3\n")
    monkeypatch.syspath_prepend(tmp_path)

    def work() -> None:
        import slow_to_import  # noqa: F401

        time.sleep(60)

    start = time.monotonic()
    with pytest.raises(TimeLimitExceeded):
        within(0.1, work)
    assert time.monotonic() - start < 10
    assert sys.modules.pop("slow_to_import").value == 3


def test_outside_the_main_thread_the_result_is_dropped() -> None:
    raised: list[str] = []

    def work() -> None:
        try:
            within(0.05, lambda: time.sleep(0.2))
        except TimeLimitExceeded as error:
            raised.append(str(error))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert raised == ["took longer than 0.05 s"]


def test_a_timer_of_somebody_else_goes_on() -> None:
    rang: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda *_: rang.append(1))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.4)
        with pytest.raises(TimeLimitExceeded):
            within(0.1, lambda: time.sleep(60))
        time.sleep(0.6)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert rang == [1]

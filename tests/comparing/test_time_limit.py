"""A result counts where the work that made it took no longer than it may."""

from __future__ import annotations

import time

import pytest

from qsci_plugins.comparing.time_limit import TimeLimitError, within


def test_work_in_time_returns_its_result() -> None:
    assert within(5, lambda: 7) == within(None, lambda: 7) == 7


def test_a_result_that_came_too_late_does_not_count() -> None:
    with pytest.raises(TimeLimitError, match=r"^took longer than 0.05 s$"):
        within(0.05, lambda: time.sleep(0.1))


def test_errors_of_the_work_are_its_own() -> None:
    with pytest.raises(ZeroDivisionError):
        within(5, lambda: 1 / 0)

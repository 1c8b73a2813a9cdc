from __future__ import annotations

import os
import signal

import pytest
import torch

from qsci_plugins.comparing.processes import on_processes
from qsci_plugins.errors import UserError


def square(number: int) -> tuple[int, int, int]:
    """The square, and where and on how many threads it was computed."""
    if number < 0:
        raise UserError(f"{number} is negative")
    return number**2, os.getpid(), torch.get_num_threads()


def die(number: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return number


def test_one_job_stays_here_and_in_order() -> None:
    before = torch.get_num_threads()
    results = list(on_processes(square, [3, 1, 2], 1))
    assert results == [(3, (9, os.getpid(), 1)), (1, (1, os.getpid(), 1)), (2, (4, os.getpid(), 1))]
    assert torch.get_num_threads() == before


def test_several_jobs_do_every_task_once_elsewhere() -> None:
    results = dict(on_processes(square, range(12), 2))
    assert {task: result[0] for task, result in results.items()} == {task: task**2 for task in range(12)}
    assert os.getpid() not in {result[1] for result in results.values()}
    assert {result[2] for result in results.values()} == {1}


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_error_of_a_task_is_the_callers(jobs: int) -> None:
    with pytest.raises(UserError, match="-1 is negative"):
        list(on_processes(square, [1, -1, *range(20)], jobs))


def test_a_killed_process_is_a_clear_error() -> None:
    with pytest.raises(UserError, match=r"one of 2 processes was killed.*fewer --jobs"):
        list(on_processes(die, [1, 2], 2))

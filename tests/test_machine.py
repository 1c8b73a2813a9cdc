"""The device that torch computes on: which one is taken, what is refused, and the error of one without memory."""

from __future__ import annotations

import pytest
import torch

from qsci_plugins.errors import UserError
from qsci_plugins.machine import choose_device, memory_error, memory_limit


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> int:
    count: int = getattr(request, "param", 1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    for name in ("WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    return count


@pytest.mark.parametrize(
    ("gpus", "wanted", "expected"),
    [
        (0, "auto", "cpu"),
        (0, "cpu", "cpu"),
        (1, "auto", "cuda:0"),
        (1, "cuda", "cuda:0"),
        (1, "cpu", "cpu"),
        (2, "cuda:1", "cuda:1"),
    ],
    indirect=["gpus"],
)
def test_auto_takes_the_gpu_where_there_is_one(gpus: int, wanted: str, expected: str) -> None:
    assert choose_device(wanted) == expected


@pytest.mark.parametrize(
    ("gpus", "wanted", "message"),
    [
        (0, "cuda", "device cuda: torch .*; use auto or cpu"),
        (0, "cuda:1", "device cuda:1: torch .*; use auto or cpu"),
        (1, "cuda:7", "there is 1 GPU, cuda:0, and no cuda:7; use one of them, or cpu"),
        (4, "cuda:4", "there are 4 GPUs, cuda:0 to cuda:3, and no cuda:4"),
        (1, "gpu", "should be auto, cpu, cuda or cuda:N, not 'gpu'"),
        (1, "cuda:", "should be auto, cpu, cuda or cuda:N"),
    ],
    indirect=["gpus"],
)
def test_a_device_that_is_not_there_is_refused_with_a_way_out(gpus: int, wanted: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        choose_device(wanted)


@pytest.mark.parametrize("gpus", [2], indirect=True)
def test_of_several_processes_each_takes_a_gpu_of_its_own(gpus: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert choose_device("auto") == "cuda:1"
    with pytest.raises(UserError, match="3 processes need a GPU each; use cuda"):
        choose_device("cuda:1")
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(UserError, match="no cuda:2; start at most 2 processes here"):
        choose_device("auto")


def test_a_gpu_without_memory_is_one_short_error_with_a_way_out() -> None:
    said = (
        "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 79.10 GiB of which 1.06 GiB is free."
        " Process 7 has 78.04 GiB memory in use. See https://pytorch.org/docs"
    )
    error = memory_error(torch.OutOfMemoryError(said))
    assert error is not None
    assert "(CUDA out of memory. Tried to allocate 2.50 GiB); use smaller batches" in str(error)
    assert "--device cpu" in str(error)
    assert memory_error(RuntimeError(said)) is None
    assert memory_error(MemoryError()) is None


def test_the_memory_that_a_file_may_ask_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QSCI_MAX_MEMORY", raising=False)
    assert memory_limit() == 4 * 2**30
    monkeypatch.setenv("QSCI_MAX_MEMORY", "0.5")
    assert memory_limit() == 2**29
    for wrong in ("lots", "0", "-1", "nan", "inf"):
        monkeypatch.setenv("QSCI_MAX_MEMORY", wrong)
        with pytest.raises(UserError, match=f"QSCI_MAX_MEMORY={wrong}: give the GiB"):
            memory_limit()

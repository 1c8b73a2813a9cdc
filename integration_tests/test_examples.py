"""Docstring examples that run or measure whole networks; most use what the example of `run` leaves."""

from __future__ import annotations

from pathlib import Path

import pytest
from docstring_examples import LONG, run_examples


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with `runs/tiny`, as the example of `run` makes it."""
    folder = tmp_path_factory.mktemp("examples")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run_examples("run")
    return folder


#: examples that measure for a minute and more
_SLOW = ("bench", "cost", "Reconstructor")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in _SLOW)) for name in LONG if name != "run"]
)
def test_the_example_runs(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    run_examples(name)

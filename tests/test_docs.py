"""Every name that `qsci_plugins` exports has an example in its docstring that runs as it stands."""

from __future__ import annotations

from pathlib import Path

import pytest
from docstring_examples import LONG, examples, run_examples

import qsci_plugins

NAMES = [name for name in qsci_plugins.__all__ if callable(getattr(qsci_plugins, name))]


@pytest.mark.parametrize("name", NAMES)
def test_every_exported_name_has_an_example(name: str) -> None:
    assert examples(name), f"qsci_plugins.{name} has no example in its docstring"


def test_long_examples_are_of_exported_names() -> None:
    assert set(LONG) <= set(NAMES)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in LONG])
def test_the_example_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_examples(name)

"""Files of torch.save are read in one place, which runs nothing that they hold."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch

import qsci_plugins
from qsci_plugins.errors import UserError
from qsci_plugins.safe_load import load_without_code


class Harmful:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, ("touch was-run",)


def test_tensors_and_plain_values_come_back(tmp_path: Path) -> None:
    torch.save({"step": 3, "weights": [torch.ones(2)]}, tmp_path / "state.pt")
    content = load_without_code(tmp_path / "state.pt")
    assert content["step"] == 3
    assert torch.equal(content["weights"][0], torch.ones(2))


def test_code_is_refused_in_one_line_that_does_not_advise_to_run_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"weights": Harmful()}, "bad.pt")
    with pytest.raises(UserError, match=r"bad\.pt is refused: it holds Python code .*system") as raised:
        load_without_code(Path("bad.pt"))
    assert "weights_only" not in str(raised.value)
    assert not Path("was-run").exists()


def test_a_missing_file_and_another_kind_of_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no file"):
        load_without_code(tmp_path / "missing.pt")
    (tmp_path / "text.pt").write_text("steps: 3\n")
    with pytest.raises(UserError, match="not a checkpoint, or a damaged one"):
        load_without_code(tmp_path / "text.pt")


def test_nothing_else_in_the_package_unpickles() -> None:
    package = Path(qsci_plugins.__file__).parent
    calls = re.compile(r"torch\.load\((?!weights_only)|pickle\.load|allow_pickle=True")
    found = {file.relative_to(package).as_posix() for file in package.rglob("*.py") if calls.search(file.read_text())}
    assert found == {"safe_load.py"}

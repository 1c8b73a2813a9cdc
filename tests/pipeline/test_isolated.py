"""What a crash in the child process that times networks is put down to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from qsci_plugins.errors import UserError
from qsci_plugins.pipeline import isolated
from qsci_plugins.pipeline.child_process import KilledError

TASK: Any = SimpleNamespace(samples=lambda prepared: [])
PREPARED: Any = SimpleNamespace(recipe=SimpleNamespace(export=SimpleNamespace(openvino=SimpleNamespace(tile=[8, 8]))))


def answering(crashes: Callable[[Mapping[str, str]], str | None]) -> Callable[..., dict[str, Any]]:
    """Stands for the child process: it crashes in the step that `crashes` names for the rows left out."""

    def ask(what: str, work: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
        step = crashes(settings["failed"])
        if step is not None:
            raise KilledError(step, "crashes (SIGSEGV)", "SIGSEGV")
        return {"done": {"left out": dict(settings["failed"])}}

    return ask


@pytest.mark.parametrize("step", ["nncf_int8", "ours", "timing"])
def test_the_default_graph_of_nncf_is_left_out_where_something_crashes_after_it(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(isolated, "_ask", answering(lambda failed: None if "nncf_int8" in failed else step))
    rows = isolated.latency_isolated(TASK, PREPARED, tmp_path / "model")
    assert rows == {"left out": {"nncf_int8": "crashes OpenVINO or NNCF (SIGSEGV)"}}


def test_a_crash_without_it_is_our_network_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolated, "_ask", answering(lambda failed: "ours"))
    with pytest.raises(UserError, match="OpenVINO crashes running the exported network \\(SIGSEGV\\)"):
        isolated.latency_isolated(TASK, PREPARED, tmp_path / "model")

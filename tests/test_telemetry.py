"""Where our commands and these tests run, OpenVINO reports nothing, for which it would start processes."""

from __future__ import annotations

import os

import pytest
from openvino import Shape
from torch import nn

from qsci_plugins.openvino.convert import convert


def test_converting_a_network_starts_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []
    fork = os.fork

    def counted() -> int:
        started.append(1)
        return fork()

    monkeypatch.setattr(os, "fork", counted)
    assert convert(nn.Conv2d(3, 4, 3), (1, 3, 8, 8)).output(0).shape == Shape([1, 4, 6, 6])
    assert not started

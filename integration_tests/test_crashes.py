"""A crash of torch, OpenVINO or NNCF is one line, and costs neither the command nor what the run had done."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from qsci_plugins.errors import UserError
from qsci_plugins.pipeline.run import run_recipe
from qsci_plugins.recipes import make_recipe

FRAGILE = """
import os

import torch
from torch import nn


class Fragile(nn.Module):
    scale, value_range = 2, 1.0

    def __init__(self, always):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.last = nn.Conv2d(8, 12, 3, padding=1)
        self.always = always

    def forward(self, x):
        if torch.jit.is_tracing() and (self.always or type(self.first) is nn.Conv2d):
            os.kill(os.getpid(), 11)
        return nn.functional.pixel_shuffle(self.last(torch.relu(self.first(x))), 2)
"""


def recipe(always: bool) -> Any:
    return make_recipe(
        {
            "version": 1,
            "model": {"architecture": "python:fragile_network:Fragile", "settings": {"always": always}},
            "backend": "brevitas",
            "scheme": {"name": "adabm", "weight_bits": 8, "activation_bits": 8, "image_mapping": False},
            "calibrate": {"count": 2, "patch": 32, "batch": 2},
            "export": {"openvino": {"mode": "static", "tile": [32, 32]}},
        }
    )


@pytest.fixture(autouse=True)
def _module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fragile_network.py").write_text(FRAGILE)
    monkeypatch.chdir(tmp_path)


def test_where_the_float_network_crashes_its_rows_say_so_and_the_run_is_kept(tmp_path: Path) -> None:
    run_recipe(recipe(False), tmp_path / "run")
    rows = {row["name"]: row for row in json.loads((tmp_path / "run" / "metrics.json").read_text())["latency"]["rows"]}
    assert rows["fp32"]["failed"] == rows["nncf_int8"]["failed"] == "crashes OpenVINO or NNCF (SIGSEGV)"
    assert rows["ours"]["median_ms"] > 0
    assert (tmp_path / "run" / "model" / "manifest.json").is_file()


def test_where_the_export_crashes_it_is_one_error_and_the_trained_network_is_kept(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"torch or OpenVINO crashes converting .*\(SIGSEGV\).*the steps done are kept"):
        run_recipe(recipe(True), tmp_path / "run")
    assert (tmp_path / "run.partial" / "checkpoint.pt").is_file()

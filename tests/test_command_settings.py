"""Every command's arguments become its settings, with the defaults that the settings have."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest

from qsci_plugins.commands import bench, benchmark, cost, evaluate, sweep
from qsci_plugins.commands.options import read_settings
from qsci_plugins.comparing.settings import (
    BenchmarkSettings,
    BenchSettings,
    CostSettings,
    EvaluateSettings,
    SweepSettings,
)


def parsed(command: Any, *arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.add(parser.add_subparsers())
    return parser.parse_args(arguments)


def test_defaults_are_those_of_the_settings() -> None:
    run = Path("run")
    assert read_settings(EvaluateSettings, parsed(evaluate, "evaluate", "run")) == EvaluateSettings(run=run)
    assert read_settings(BenchSettings, parsed(bench, "bench", "run")) == BenchSettings(models=[run])
    assert read_settings(CostSettings, parsed(cost, "cost")) == CostSettings()
    expected = BenchmarkSettings(targets=["a", "b"], overrides=[])
    assert read_settings(BenchmarkSettings, parsed(benchmark, "benchmark", "a", "b")) == expected


def test_every_option_of_a_benchmark_and_a_sweep_arrives() -> None:
    shared = ["--data", "d", "--sets", "Set5", "x/y", "-j", "3", "--set", "seed=1", "--set", "train=null", "-o", "out"]
    shared += ["--cluster", "auto"]
    common: dict[str, Any] = {
        "data": Path("d"), "sets": ["Set5", "x/y"], "jobs": 3, "overrides": ["seed=1", "train=null"], "output": Path("out"),
        "cluster": "auto",
    }  # fmt: skip
    arguments = parsed(benchmark, "benchmark", "a", "--baseline", *shared)
    assert read_settings(BenchmarkSettings, arguments) == BenchmarkSettings(targets=["a"], baseline=True, **common)
    arguments = parsed(sweep, "sweep", "a", "--key", "seed=1,2", "--one-at-a-time", *shared)
    assert arguments.values == ["seed=1,2"]
    settings = read_settings(SweepSettings, arguments, values={"seed": [1, 2]})
    assert settings == SweepSettings(recipe="a", values={"seed": [1, 2]}, one_at_a_time=True, **common)


@pytest.mark.parametrize("arguments", [["sweep", "a", "-o", "out"], ["sweep", "a", "--key", "seed=1"], ["evaluate"]])
def test_what_settings_need_the_command_line_needs(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parsed(sweep if arguments[0] == "sweep" else evaluate, *arguments)
    assert "required" in capsys.readouterr().err

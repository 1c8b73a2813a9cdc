"""A scheme of another package, installed by pip and found by its entry point, in both backends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "power-of-two"
version = "0.0.1"

[project.entry-points."qsci_plugins.schemes"]
power_of_two = "power_of_two:PowerOfTwo"
not_a_scheme = "power_of_two:Shifted"
no_module = "power_of_none:Nothing"

[tool.hatch.build.targets.wheel]
packages = ["power_of_two"]
"""

SCHEME = '''
"""Steps that are powers of two, so that rescaling is a shift."""

from typing import ClassVar, Literal

import torch
from qsci_plugins.schemes.quantizer import QParams, Quantizer
from qsci_plugins.schemes.scheme import LayerQuantizers, Scheme, SchemeConfig
from torch import nn


class Config(SchemeConfig):
    name: Literal["power_of_two"] = "power_of_two"
    bits: int = 6


class Shifted(Quantizer):
    def __init__(self, bits: int) -> None:
        super().__init__()
        self.bits = bits
        self.peak = nn.Parameter(torch.ones(()))
        self._seen = []

    def qparams(self, x):
        bound = torch.tensor(2.0 ** (self.bits - 1) - 1)
        scale = 2.0 ** torch.ceil(torch.log2(self.peak / bound))
        return QParams(scale, None, -bound, bound, torch.tensor(float(self.bits)))

    def update(self, statistics):
        self._seen.append(statistics.abs().max())

    def initialise(self) -> None:
        with torch.no_grad():
            self.peak.copy_(max(self._seen))
        self._seen = []
        super().initialise()


class PowerOfTwo(Scheme):
    Config: ClassVar[type[SchemeConfig]] = Config

    def layer(self, module, precision):
        bits = self.config.bits if precision == "scheme" else 8
        return LayerQuantizers(Shifted(bits), Shifted(bits), counted=precision == "scheme")
'''

RECIPE = """version: 1
model: {architecture: edsr, scale: 2, settings: {blocks: 2, width: 8}}
scheme: {name: power_of_two, bits: 5}
place: {targets: ["body.*"], eight_bit: ["tail.*"], float: ["head.*"]}
calibrate: {count: 4, patch: 24, batch: 2}
train: {steps: 2, precision: float32}
evaluate: [{set: builtin}]
export: {openvino: {mode: static, tile: [64, 80]}}
"""

#: what a reload in a new process must give again
RELOAD = """
import sys, torch
from importlib import import_module
import qsci_plugins
recipe = qsci_plugins.read_recipe(f"{sys.argv[1]}/recipe.yaml")
stock = qsci_plugins.load_network("edsr", None, 2, seed=5, blocks=2, width=8).module  # its weights do not matter
backend = import_module(f"qsci_plugins.{recipe.backend}.backend")
network = backend.load(stock, f"{sys.argv[1]}/checkpoint.pt")
x = torch.linspace(0, 255, 3 * 20 * 24).view(1, 3, 20, 24)
with torch.no_grad():
    first = network.model(x)
backend.save(network, f"{sys.argv[2]}/again.pt")
with torch.no_grad():
    second = backend.load(stock, f"{sys.argv[2]}/again.pt").model(x)
assert torch.equal(first, second)
print(type(network.scheme).__module__, float(network.fab(x)), len(network.layers), first.std() > 1)
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment variables of a process that finds the other package installed."""
    source = tmp_path_factory.mktemp("source")
    target = tmp_path_factory.mktemp("installed")
    (source / "power_of_two").mkdir()
    (source / "pyproject.toml").write_text(PROJECT)
    (source / "power_of_two" / "__init__.py").write_text(SCHEME)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--disable-pip-version-check", "--target", str(target), str(source)], check=True)
    return {**os.environ, "PYTHONPATH": str(target), "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}


def python(environment: dict[str, str], folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A process of its own, in `folder`."""
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("backend", ["nncf", pytest.param("brevitas", marks=pytest.mark.slow)])
def test_its_scheme_runs_from_a_recipe_and_reloads(environment: dict[str, str], tmp_path: Path, backend: str) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    command = ["run", "recipe.yaml", "-o", "out", "--set", f"backend={backend}"]
    done = python(environment, tmp_path, "-m", "qsci_plugins", *command)
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    row = metrics["sets"]["builtin"]
    assert row["torch"]["fab"] == 5
    assert row["torch"]["psnr"] != row["float"]["psnr"]
    assert abs(row["torch"]["psnr"] - row["openvino"]["psnr"]) < 0.02
    assert metrics["bits"]["body.0.body.0"] == {"weight": 5, "activation": 5}
    assert metrics["bits"]["tail.1"] == {"weight": 8, "activation": 8}
    reloaded = python(environment, tmp_path, "-c", RELOAD, "out", str(tmp_path))
    assert reloaded.returncode == 0, reloaded.stderr
    assert reloaded.stdout.split() == ["power_of_two", "5.0", "7", "tensor(True)"]


def test_its_scheme_has_the_settings_of_its_own_config(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    for override, message in [
        ("scheme.bitz=4", "did you mean 'bits'?"),
        ("scheme.name=power_of_tow", "did you mean 'power_of_two'?"),
        ("scheme.name=not_a_scheme", "power_of_two:Shifted is not a qsci_plugins Scheme class"),
        ("scheme.name=no_module", "entry point power_of_none:Nothing cannot be imported: No module named"),
    ]:
        done = python(environment, tmp_path, "-m", "qsci_plugins", "validate", "recipe.yaml", "--set", override)
        assert done.returncode == 2, done.stderr
        assert message in done.stderr
        assert "Traceback" not in done.stderr


def test_without_the_package_the_scheme_is_unknown(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    without = {name: value for name, value in environment.items() if name != "PYTHONPATH"}
    done = python(without, tmp_path, "-m", "qsci_plugins", "validate", "recipe.yaml")
    assert done.returncode == 2
    assert "no scheme is called 'power_of_two'" in done.stderr

"""What we export is an ordinary OpenVINO model: OpenVINO's own benchmark_app runs it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

from qsci_plugins.cli import main
from qsci_plugins.openvino.manifest import load_manifest

_APP = Path(sysconfig.get_path("scripts")) / "benchmark_app"


@pytest.mark.skipif(not _APP.is_file(), reason="this OpenVINO has no benchmark_app")
def test_benchmark_app_runs_every_route(tmp_path: Path) -> None:
    settings = ["model.weights=null", "model.architecture=edsr", "model.settings={blocks: 1, width: 8}", "train=null"]
    settings += ["calibrate={count: 8, patch: 32}", "evaluate=[]", "export.openvino.tile=[32, 48]"]
    command = ["run", "edsr_x4_adabm_w4a4", "-o", str(tmp_path / "run")]
    assert main([*command, *(word for setting in settings for word in ("--set", setting))]) == 0
    folder = tmp_path / "run" / "model"
    manifest = load_manifest(folder)
    for graph in {route.graph.name for route in manifest.routes}:
        # benchmark_app wants weights of the graph's name; ours are shared by the routes
        shutil.copy(folder / graph, tmp_path / "graph.xml")
        shutil.copy(folder / manifest.weights.name, tmp_path / "graph.bin")
        told = subprocess.run(
            [_APP, "-m", tmp_path / "graph.xml", "-niter", "4", "-hint", "latency"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert told.returncode == 0, told.stdout + told.stderr
        assert re.search(r"Throughput: +[\d.]+ FPS", told.stdout)

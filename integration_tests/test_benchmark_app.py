"""What we export is an ordinary OpenVINO model: OpenVINO's own benchmark_app runs it."""

from __future__ import annotations

import re
import subprocess
import sysconfig
from pathlib import Path

import pytest
from openvino_networks import integer_layers

from qsci_plugins.cli import main
from qsci_plugins.evaluation.latency import open_exported
from qsci_plugins.openvino.manifest import load_manifest

_APP = Path(sysconfig.get_path("scripts")) / "benchmark_app"

_IMAGES = """version: 1
model: {architecture: edsr, scale: 2, settings: {blocks: 1, width: 8}}
scheme: SCHEME
place: {targets: ["body.*"]}
calibrate: {count: 4, patch: 24, batch: 4}
evaluate: []
export: {openvino: {mode: MODE, tile: [32, 48]}}
"""
_ADABM = "{name: adabm, weight_bits: 4, activation_bits: 4}"
_VIDEO = """version: 1
model: {architecture: efficientsci, settings: {in_ch: 2, units: 1, group_num: 1}}
scheme: {name: qsci, weight_bits: 4, activation_bits: 4}
shortcuts: ["fem.*"]
clips: {frames: 3, size: 24, resize: false}
calibrate: {count: 2, patch: 8, batch: 2}
export: {openvino: {tile: [24, 24], overlap: 1}}
"""

#: a recipe, how many graphs come of it, and whether these choose their bits themselves
_CASES = {
    "routed": (_IMAGES.replace("SCHEME", _ADABM).replace("MODE", "routed"), 3, False),
    "adabm_dynamic": (_IMAGES.replace("SCHEME", _ADABM).replace("MODE", "dynamic"), 1, True),
    "cadyq_dynamic": (_IMAGES.replace("SCHEME", "{name: cadyq}").replace("MODE", "static"), 1, True),
    "video": (_VIDEO, 1, False),
}


@pytest.mark.skipif(not _APP.is_file(), reason="this OpenVINO has no benchmark_app")
@pytest.mark.parametrize("case", _CASES)
def test_benchmark_app_runs_every_graph(case: str, tmp_path: Path) -> None:
    recipe, count, chooses = _CASES[case]
    (tmp_path / "tiny.yaml").write_text(recipe)
    assert main(["run", str(tmp_path / "tiny.yaml"), "-o", str(tmp_path / "run")]) == 0
    folder = tmp_path / "run" / "model"
    manifest = load_manifest(folder)
    graphs = {route.graph.name for route in manifest.routes}
    assert len(graphs) == count
    compiled = open_exported(folder, threads=1)
    assert (len(compiled.outputs) == 2) == chooses  # the second tells the bits
    assert any(integer_layers(compiled).values())
    for graph in graphs:
        done = subprocess.run(
            [_APP, "-m", folder / graph, "-niter", "4", "-nthreads", "1", "-hint", "none", "-nstreams", "1"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert re.search(r"Throughput: +[\d.]+ FPS", done.stdout)

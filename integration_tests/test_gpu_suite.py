"""The suite for GPUs starts where openvino, av and the like are missing: its tests run there in small, on the CPU."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent

#: as Python sees a package that is not installed
WITHOUT = """
import sys
for name in ("openvino", "openvino_telemetry", "av", "h5py", "tifffile", "onnx", "onnxruntime", "onnxscript", "tensorboard"):
    sys.modules[name] = None
import pytest
sys.exit(pytest.main(["-m", "gpu", "-n", "0", "-s", "-p", "no:cacheprovider", *sys.argv[1:]]))
"""


def run(suite: str, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "PYTHONPATH": str(REPOSITORY), **environment}
    variables.pop("PYTEST_ADDOPTS", None)
    return subprocess.run(
        [sys.executable, "-c", WITHOUT, suite],
        cwd=REPOSITORY,
        env=variables,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_its_tests_pass_on_a_cpu_without_openvino() -> None:
    done = run("tests/gpu", QSCI_GPU_TESTS="cpu")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"adabm in nncf on cpu: [\d.]+ of float, goal 1\.6", done.stdout)
    assert re.search(r"EDSR-baseline x4, W4A4, in brevitas on cpu: [\d.]+ s, goal 26", done.stdout)


def test_without_a_gpu_it_skips_and_says_why() -> None:
    done = run("tests/gpu/test_gpu_training.py", CUDA_VISIBLE_DEVICES="", QSCI_GPU_TESTS="")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed" not in done.stdout
    assert "skipped" in done.stdout

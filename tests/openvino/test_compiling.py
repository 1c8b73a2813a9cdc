"""What a graph is compiled with."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import openvino
import pytest
from openvino import opset13 as ops

from qsci_plugins.errors import UserError
from qsci_plugins.openvino.compiling import LOCK, compile_graph


@pytest.fixture
def graph() -> openvino.Model:
    x = ops.parameter([1, 4], np.float32)
    return openvino.Model([ops.matmul(x, ops.constant(np.eye(4, dtype=np.float32)), False, False)], [x])


def test_one_inference_at_a_time_in_f32_unless_said_otherwise(graph: openvino.Model) -> None:
    compiled = compile_graph(openvino.Core(), graph)
    assert str(compiled.get_property("PERFORMANCE_HINT")).endswith("LATENCY")
    assert compiled.get_property("INFERENCE_PRECISION_HINT") == openvino.Type.f32
    assert compiled(np.arange(4, dtype=np.float32)[None])[0].tolist() == [[0, 1, 2, 3]]


def test_settings_win(graph: openvino.Model) -> None:
    settings = {"INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY"}
    compiled = compile_graph(openvino.Core(), graph, hint="THROUGHPUT", settings=settings)
    assert compiled.get_property("INFERENCE_NUM_THREADS") == 1
    assert str(compiled.get_property("PERFORMANCE_HINT")).endswith("LATENCY")


def test_a_cache_folder_is_filled_and_locked(graph: openvino.Model, tmp_path: Path) -> None:
    compile_graph(openvino.Core(), graph, settings={"CACHE_DIR": str(tmp_path / "cache")})
    assert LOCK in os.listdir(tmp_path / "cache")
    assert len(os.listdir(tmp_path / "cache")) == 2
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cache folder .*file cannot be used"):
        compile_graph(openvino.Core(), graph, settings={"CACHE_DIR": str(tmp_path / "file")})

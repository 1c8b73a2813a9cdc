"""What a graph is compiled with."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import pytest
from exact_network import exact_upscaler
from openvino import opset13 as ops

from qsci_plugins.errors import UserError
from qsci_plugins.openvino.compiling import LOCK, compile_graph, read_graph
from qsci_plugins.openvino.manifest import load_manifest
from qsci_plugins.openvino.runtime import Upscaler


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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scale": 3}, "gives u8 1x64x80x3, by its manifest u8 1x32x40x3 and u8 1x96x120x3"),
        ({"tile": (32, 41)}, "takes u8 1x32x40x3"),
    ],
)
def test_a_graph_is_what_its_manifest_says(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    folder = exact_upscaler(tmp_path / "model")
    (folder / "manifest.json").write_bytes(replace(load_manifest(folder), **change).to_bytes())
    with pytest.raises(UserError, match=rf"model-\w+\.xml takes .*{message.removeprefix('takes ')}"):
        Upscaler(folder).upscale(np.zeros((9, 9, 3), np.uint8))


ENTITY = b'<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a SYSTEM "file:///etc/hostname">]><net name="&a;" version="11"/>'


@pytest.mark.parametrize(
    "text", [b"", b"words", b"\x08\x07\x12\x04", ENTITY, b'<?xml version="1.0"?><net version="11"/>']
)
def test_what_is_no_graph_is_one_line_that_names_the_file(tmp_path: Path, text: bytes) -> None:
    manifest = load_manifest(exact_upscaler(tmp_path / "model"))
    with pytest.raises(UserError, match=r"^x\.xml[: ]") as refused:
        read_graph(openvino.Core(), "x.xml", text, b"", manifest)
    assert "\n" not in str(refused.value)

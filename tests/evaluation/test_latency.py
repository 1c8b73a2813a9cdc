"""Latencies are measured on the models' own inputs, and precisions are those asked for."""

from __future__ import annotations

import time
from pathlib import Path

import openvino
import pytest
from openvino_networks import calibrated_edsr

from qsci_plugins.evaluation.latency import measure_throughput, open_graph, time_in_turns
from qsci_plugins.evaluation.memory import peak_memory
from qsci_plugins.openvino.convert import convert
from qsci_plugins.openvino.export import export_upscaler
from qsci_plugins.openvino.precisions import has_bf16, runtime_precisions


def test_measures_images_and_float_tensors_side_by_side(tmp_path: Path) -> None:
    stock, network = calibrated_edsr(width=16)
    manifest = export_upscaler(network, stock, tmp_path / "m", tile=(48, 64), scale=2, overlap=2, mode="static")
    models = {
        "large": open_graph(convert(stock, (1, 3, 192, 256)), threads=1),
        "small": open_graph(convert(stock, (1, 3, 12, 16)), threads=1),
        "ours": open_graph(
            tmp_path / "m" / manifest.routes[0].graph.name, tmp_path / "m" / manifest.weights.name, threads=1
        ),
    }
    latencies = time_in_turns(models, (48, 64), repeats=5)
    assert set(latencies) == set(models)
    for latency in latencies.values():
        assert 0 < latency.fast_ms <= latency.median_ms <= latency.slowest_ms
    assert latencies["small"].median_ms < latencies["large"].median_ms


def test_float_layers_take_the_precision_asked_for() -> None:
    stock, _ = calibrated_edsr(blocks=1)
    model = convert(stock, (1, 3, 16, 16))
    wanted = ["f32", "bf16"] if has_bf16() else ["f32"]
    for precision in wanted:
        compiled = open_graph(model, precision=precision, threads=1)
        layers = [layer for layer in runtime_precisions(compiled) if layer.type == "Convolution"]
        assert layers
        assert {layer.precision for layer in layers[1:-1]} == {precision}


def test_functions_take_turns_with_models() -> None:
    calls: list[str] = []
    latencies = time_in_turns(
        {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, (1, 1), repeats=3, warm_up=1
    )
    assert calls == ["a", "b"] * 4
    assert set(latencies) == {"a", "b"}


def test_a_model_that_has_run_as_long_as_it_may_sits_out() -> None:
    rounds: list[int] = []
    models = {"slow": lambda: time.sleep(0.1), "fast": lambda: None}
    latencies = time_in_turns(models, (1, 1), repeats=4, warm_up=1, limit=0.25, advance=rounds.append)
    assert {name: latency.runs for name, latency in latencies.items()} == {"slow": 2, "fast": 4}
    assert rounds == [1, 2, 3, 4, 5]
    # one run is timed of what the warm-up alone takes too long for
    assert time_in_turns(models, (1, 1), repeats=4, warm_up=2, limit=0.05)["slow"].runs == 1


def test_throughput_counts_every_image() -> None:
    stock, _ = calibrated_edsr(blocks=1)
    models = {
        name: open_graph(convert(stock, (1, 3, side, side)), threads=1, hint="THROUGHPUT")
        for name, side in (("small", 8), ("large", 128))
    }
    rates = measure_throughput(models, (8, 8), rounds=3, bursts=2)
    assert rates["small"] > rates["large"] > 0


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="the system does not tell a process's peak memory")
def test_a_larger_tile_takes_more_memory(tmp_path: Path) -> None:
    stock, _ = calibrated_edsr(blocks=1)
    peaks = []
    for side in (16, 768):
        openvino.save_model(convert(stock, (1, 3, side, side)), tmp_path / f"{side}.xml")
        peaks.append(peak_memory(tmp_path / f"{side}.xml", None, (side, side), precision="f32", threads=1))
    assert peaks[1] > peaks[0] + 20

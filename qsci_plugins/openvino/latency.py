"""How long compiled networks take, measured against each other in one process."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import openvino

from qsci_plugins.openvino.precisions import Precision, has_bf16, precision_hint

__all__ = ["Latency", "has_bf16", "measure", "open_graph"]


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one inference: the median, the fastest fifth (less disturbed by other programs), the slowest."""

    median_ms: float
    fast_ms: float
    slowest_ms: float


def measure(
    models: Mapping[str, openvino.CompiledModel], shape: tuple[int, int], repeats: int = 30, warm_up: int = 3
) -> dict[str, Latency]:
    """Runs every model once per round, for `repeats` rounds, so that whatever disturbs one disturbs all.

    `shape` is the height and width of the input, for models that leave theirs open. Inputs are random images, float
    NCHW or uint8 NHWC as the model takes them.
    """
    requests = {name: _request(model, shape) for name, model in models.items()}
    times: dict[str, list[float]] = {name: [] for name in models}
    for turn in range(warm_up + repeats):
        for name, request in requests.items():
            start = time.perf_counter()
            request.infer()
            if turn >= warm_up:
                times[name].append(1000 * (time.perf_counter() - start))
    return {
        name: Latency(statistics.median(taken), float(np.quantile(taken, 0.2)), max(taken))
        for name, taken in times.items()
    }


def open_graph(
    graph: openvino.Model | Path | str,
    weights: Path | str | None = None,
    *,
    precision: Precision = "f32",
    threads: int | None = None,
) -> openvino.CompiledModel:
    """A model or IR file compiled for lowest latency on the CPU; `precision` is that of what is not quantized."""
    core = openvino.Core()
    if not isinstance(graph, openvino.Model):
        graph = core.read_model(graph) if weights is None else core.read_model(graph, weights)
    config: dict[str, str | int] = {
        "INFERENCE_PRECISION_HINT": precision_hint(precision),
        "PERFORMANCE_HINT": "LATENCY",
    }
    if threads is not None:
        config["INFERENCE_NUM_THREADS"] = threads
    return core.compile_model(graph, "CPU", config)


def _request(model: openvino.CompiledModel, shape: tuple[int, int]) -> openvino.InferRequest:
    port = model.input(0)
    is_image = port.get_element_type() == openvino.Type.u8
    declared = port.get_partial_shape()
    size = tuple(shape)
    if declared.is_static:
        size = tuple(declared.to_shape()[1:3] if is_image else declared.to_shape()[2:4])
    image = np.random.default_rng(0).integers(0, 256, (1, *size, 3), dtype=np.uint8)
    if not is_image:
        image = np.ascontiguousarray(image.transpose(0, 3, 1, 2)).astype(port.get_element_type().to_dtype())
    request = model.create_infer_request()
    request.set_input_tensor(openvino.Tensor(image))
    return request

"""How long compiled networks take, measured against each other in one process."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import openvino

from qsci_plugins.data.snapshots import mask_sum, random_mask
from qsci_plugins.evaluation.baselines import Failed
from qsci_plugins.openvino.compiling import compile_graph
from qsci_plugins.openvino.manifest import load_manifest
from qsci_plugins.openvino.precisions import Precision

__all__ = [
    "Latency",
    "failed_row",
    "latency_row",
    "measure_throughput",
    "open_exported",
    "open_graph",
    "runner",
    "time_in_turns",
]


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one inference: the median, the fastest fifth (less disturbed by other programs), the slowest.

    `runs` is of how many.
    """

    median_ms: float
    fast_ms: float
    slowest_ms: float
    runs: int


def time_in_turns(
    models: Mapping[str, openvino.CompiledModel | Callable[[], object]],
    shape: tuple[int, int],
    repeats: int = 30,
    warm_up: int = 3,
    *,
    limit: float | None = None,
    advance: Callable[[int], object] = lambda done: None,
    begin: Callable[[str], object] = lambda name: None,
) -> dict[str, Latency]:
    """Runs every model, or function, once per round, for `repeats` rounds, so that whatever disturbs one disturbs all.

    `shape` is the height and width of the input, for models that leave theirs open. Inputs are random images, float
    NCHW or uint8 NHWC as the model takes them, or a measurement of random frames, its mask and mask_sum. A model that
    has run for `limit` seconds, warm-up included, sits out the rounds that are left, but for one that is timed.
    `advance` is called with the rounds done, of warm_up + repeats, and `begin` with the name of each model before it runs.
    """
    runs = {
        name: runner(model, shape) if isinstance(model, openvino.CompiledModel) else model
        for name, model in models.items()
    }
    times: dict[str, list[float]] = {name: [] for name in models}
    spent = dict.fromkeys(models, 0.0)
    for turn in range(warm_up + repeats):
        for name, run in runs.items():
            timed = turn >= warm_up
            if limit is not None and spent[name] >= limit and (times[name] or not timed):
                continue
            begin(name)
            start = time.perf_counter()
            run()
            seconds = time.perf_counter() - start
            spent[name] += seconds
            if timed:
                times[name].append(1000 * seconds)
        advance(turn + 1)
    return {
        name: Latency(statistics.median(taken), float(np.quantile(taken, 0.2)), max(taken), len(taken))
        for name, taken in times.items()
    }


def measure_throughput(
    models: Mapping[str, openvino.CompiledModel],
    shape: tuple[int, int],
    rounds: int = 3,
    bursts: int = 4,
    begin: Callable[[str], object] = lambda name: None,
) -> dict[str, float]:
    """Images per second of models compiled for throughput, as many at a time as they ask for; the median of the rounds.

    Every round runs each model in turn, `bursts` times as many images as it takes at a time; `begin` is called before
    with its name.
    """
    queues = {name: openvino.AsyncInferQueue(model) for name, model in models.items()}
    inputs = {name: dict(enumerate(_random_inputs(model, shape))) for name, model in models.items()}
    rates: dict[str, list[float]] = {name: [] for name in models}
    for turn in range(rounds + 1):
        for name, queue in queues.items():
            count = len(queue) * bursts
            begin(name)
            start = time.perf_counter()
            for _ in range(count):
                queue.start_async(inputs[name])
            queue.wait_all()
            if turn:  # the first round warms up
                rates[name].append(count / (time.perf_counter() - start))
    return {name: statistics.median(found) for name, found in rates.items()}


def open_graph(
    graph: openvino.Model | Path | str,
    weights: Path | str | None = None,
    *,
    precision: Precision = "f32",
    threads: int | None = None,
    hint: Literal["LATENCY", "THROUGHPUT"] = "LATENCY",
    exact: bool = True,
) -> openvino.CompiledModel:
    """A model or IR file compiled for the CPU, lowest latency by default; `precision` is that of what is not quantized.

    `exact` as in `compile_graph`, for graphs that are ours: others are compared as OpenVINO alone runs them.
    """
    core = openvino.Core()
    if not isinstance(graph, openvino.Model):
        graph = core.read_model(graph) if weights is None else core.read_model(graph, weights)
    elif exact or precision == "image_only":
        graph = graph.clone()
    settings = {} if threads is None else {"INFERENCE_NUM_THREADS": threads}
    return compile_graph(core, graph, precision=precision, hint=hint, settings=settings, exact=exact)


def open_exported(
    folder: Path, threads: int | None = None, precision: Precision | None = None
) -> openvino.CompiledModel:
    """The graph that a model folder runs an average tile through; `precision` as in `open_graph`, else the manifest's."""
    manifest = load_manifest(folder)
    graph, weights = folder / manifest.route(0).graph.name, folder / manifest.weights.name
    return open_graph(graph, weights, precision=precision or manifest.precision, threads=threads)


def runner(model: openvino.CompiledModel, shape: tuple[int, int]) -> Callable[[], object]:
    """Runs a compiled model once, on random input of its size (`shape` where it leaves that open)."""
    request = model.create_infer_request()
    for index, array in enumerate(_random_inputs(model, shape)):
        request.set_input_tensor(index, openvino.Tensor(array))
    return request.infer


def _random_inputs(model: openvino.CompiledModel, shape: tuple[int, int]) -> list[np.ndarray]:
    if len(model.inputs) == 1:
        return [_random_image(model.input(0), shape)]
    frames, height, width = model.input("mask").get_partial_shape().to_shape()[1:]
    mask = random_mask(frames, height, width)
    seen = (np.random.default_rng(0).random(mask.shape, dtype=np.float32) * mask).sum(0)
    snapshot = {"measurement": seen, "mask": mask, "mask_sum": mask_sum(mask)}
    return [np.ascontiguousarray(snapshot[port.any_name][None]) for port in model.inputs]


def _random_image(port: openvino.ConstOutput, shape: tuple[int, int]) -> np.ndarray:
    is_image = port.get_element_type() == openvino.Type.u8
    declared = port.get_partial_shape()
    size = tuple(shape)
    if declared.is_static:
        size = tuple(declared.to_shape()[1:3] if is_image else declared.to_shape()[2:4])
    image = np.random.default_rng(0).integers(0, 256, (1, *size, 3), dtype=np.uint8)
    if is_image:
        return image
    return np.ascontiguousarray(image.transpose(0, 3, 1, 2)).astype(port.get_element_type().to_dtype())


def latency_row(name: str, title: str, latency: Latency) -> dict[str, Any]:
    """A row of a latency table."""
    return {
        "name": name,
        "title": title,
        "median_ms": round(latency.median_ms, 2),
        "fast_ms": round(latency.fast_ms, 2),
        "slowest_ms": round(latency.slowest_ms, 2),
    }


def failed_row(failed: Failed) -> dict[str, Any]:
    """A row that has a reason in `failed` and no numbers."""
    times = dict.fromkeys(("median_ms", "fast_ms", "slowest_ms"))
    return {"name": failed.name, "title": failed.title, **times, "failed": failed.reason}

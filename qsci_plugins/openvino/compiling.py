"""Compiles a graph for a device, with its precision, its settings and its cache."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import openvino

from qsci_plugins.openvino.device_settings import cache_to_itself
from qsci_plugins.openvino.precisions import Precision, precision_hint, prepared

__all__ = ["compile_graph"]


def compile_graph(
    core: openvino.Core,
    graph: openvino.Model,
    device: str = "CPU",
    *,
    precision: Precision = "f32",
    hint: Literal["LATENCY", "THROUGHPUT"] = "LATENCY",
    settings: Mapping[str, Any] | None = None,
) -> openvino.CompiledModel:
    """A graph compiled for one inference at a time, or as the `hint` says for many.

    `precision` is that of what does not run in integers, on a CPU; "image_only" changes `graph` in place. `settings` are
    OpenVINO's, such as `device_settings` gives them, and win; while a graph goes into their CACHE_DIR or comes out of it,
    other processes wait. Raises UserError for a cache folder that cannot be written.
    """
    config: dict[str, Any] = {"PERFORMANCE_HINT": hint}
    if device == "CPU":
        config["INFERENCE_PRECISION_HINT"] = precision_hint(precision)
        graph = prepared(graph, precision)
    config.update(settings or {})
    with cache_to_itself(config):
        return core.compile_model(graph, device, config)

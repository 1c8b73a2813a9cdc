"""The exported network beside OpenVINO's fp32 and bf16 and NNCF's default INT8: compiled, and timed together."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import openvino
from torch import Tensor

from qsci_plugins.architectures.network import Network
from qsci_plugins.openvino.latency import Latency, has_bf16, measure, open_graph
from qsci_plugins.openvino.manifest import load_manifest
from qsci_plugins.recipes.baselines import default_int8_graph, float_graph

__all__ = ["TITLES", "compile_forms", "compile_ours", "latency_row", "measured_latency", "usable_threads"]

#: the rows of a latency table by name, in their order
TITLES = {"fp32": "OpenVINO fp32", "bf16": "OpenVINO bf16", "nncf_int8": "NNCF default INT8", "ours": "ours"}


def usable_threads() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def compile_forms(
    network: Network, patches: Tensor, folder: Path, tile: tuple[int, int], threads: int
) -> dict[str, openvino.CompiledModel]:
    """Every row of the table for one network; NNCF calibrates its default on `patches` (N,3,h,w)."""
    plain = float_graph(network, tile)
    compiled = {"fp32": open_graph(plain, precision="f32", threads=threads)}
    if has_bf16():
        compiled["bf16"] = open_graph(plain, precision="bf16", threads=threads)
    compiled["nncf_int8"] = open_graph(default_int8_graph(network, tile, patches), threads=threads)
    compiled["ours"] = compile_ours(folder, threads)
    return compiled


def compile_ours(folder: Path, threads: int) -> openvino.CompiledModel:
    """The graph that a model folder runs an average tile through."""
    manifest = load_manifest(folder)
    graph, weights = folder / manifest.route(0).graph.name, folder / manifest.weights.name
    return open_graph(graph, weights, precision=manifest.precision, threads=threads)


def measured_latency(
    compiled: Mapping[str, openvino.CompiledModel], tile: tuple[int, int], repeats: int
) -> list[dict[str, Any]]:
    """One row per compiled model: its name, title and milliseconds per tile."""
    return [latency_row(name, TITLES[name], one) for name, one in measure(compiled, tile, repeats).items()]


def latency_row(name: str, title: str, latency: Latency) -> dict[str, Any]:
    """A row of a latency table."""
    return {
        "name": name,
        "title": title,
        "median_ms": round(latency.median_ms, 2),
        "fast_ms": round(latency.fast_ms, 2),
        "slowest_ms": round(latency.slowest_ms, 2),
    }

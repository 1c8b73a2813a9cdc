"""Compiles a graph for a device, with its precision, its settings and its cache."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal

import openvino

from qsci_plugins.errors import UserError
from qsci_plugins.files import locked
from qsci_plugins.openvino.manifest import Manifest
from qsci_plugins.openvino.precisions import Precision, allowed, precision_hint, prepared

__all__ = ["LOCK", "cache_to_itself", "compile_graph", "device_settings"]


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


def device_settings(
    manifest: Manifest,
    device: str = "CPU",
    *,
    threads: int | None = None,
    streams: int | None = None,
    precision: Precision | None = None,
    cache_dir: Path | str | None = None,
) -> dict[str, str | int]:
    """OpenVINO's settings for the graphs of a model folder.

    `threads` of the CPU, default all; `streams`: how many inferences share them, default OpenVINO's choice; `precision`
    of what does not run in integers, default f32, and no less than the manifest asks for; `cache_dir` keeps compiled
    graphs between processes. Raises UserError for less than one thread or stream.
    """
    for name, value in (("threads", threads), ("streams", streams)):
        if value is not None and value < 1:
            raise UserError(f"{name} is {value}; give 1 or more, or leave it out for OpenVINO's choice")
    settings: dict[str, str | int] = {}
    if device == "CPU":
        settings["INFERENCE_PRECISION_HINT"] = precision_hint(allowed(precision, manifest.precision))
        if threads is not None:
            settings["INFERENCE_NUM_THREADS"] = threads
    if streams is not None:
        settings["NUM_STREAMS"] = streams
    if cache_dir is not None:
        settings["CACHE_DIR"] = str(cache_dir)
    return settings


#: the file in a cache folder that is locked, and stays there empty
LOCK = ".lock"


@contextmanager
def cache_to_itself(settings: Mapping[str, Any]) -> Iterator[None]:
    """Holds the CACHE_DIR of OpenVINO's `settings`, if there is one and the system has advisory locks.

    Raises UserError for a folder that cannot be written.
    """
    if "CACHE_DIR" not in settings:
        yield
        return
    folder = Path(settings["CACHE_DIR"])
    with ExitStack() as held:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            held.enter_context(locked(folder / LOCK))
        except OSError as error:
            raise UserError(f"the cache folder {folder} cannot be used: {error.strerror}; name another") from None
        yield

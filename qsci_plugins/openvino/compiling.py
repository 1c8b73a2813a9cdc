"""Compiles a graph for a device, with its precision, its settings and its cache."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal

import openvino

from qsci_plugins.errors import UserError
from qsci_plugins.files import locked
from qsci_plugins.openvino.manifest import Manifest
from qsci_plugins.openvino.precisions import (
    Precision,
    allowed,
    compute_saturating_in_f32,
    precision_hint,
    prepared,
)

__all__ = ["LOCK", "cache_to_itself", "compile_graph", "device_settings", "openvino_errors", "read_graph"]


@contextmanager
def openvino_errors(file: Path | str) -> Iterator[None]:
    """What OpenVINO throws at a graph becomes a UserError of one line that names its file."""
    try:
        yield
    except (RuntimeError, ValueError, TypeError, IndexError, OverflowError) as error:
        # first come the places in OpenVINO's own sources where it was noticed
        lines = [line.strip() for line in str(error).splitlines()]
        said = [
            line for line in lines if line and not line.startswith(("Exception from", "Check '", "While validating"))
        ]
        reason = (said or lines or [type(error).__name__])[0][:200]
        raise UserError(f"{file}: OpenVINO refuses this graph ({reason}); export the model again") from error


def read_graph(
    core: openvino.Core, file: Path | str, content: bytes, weights: bytes, manifest: Manifest
) -> openvino.Model:
    """A graph at the manifest's tile, of what its `file` and that of its weights hold.

    Raises UserError, which names the file, for what is no OpenVINO graph or brings entities along (texts that stand for
    others, or for other files), and for inputs and outputs other than the manifest says.
    """
    start = content[:1024].lstrip()
    if not start.startswith((b"<?xml", b"<net")) or b"<!" in content:
        raise UserError(f"{file} is no OpenVINO graph; export the model again")
    with openvino_errors(file):
        model = core.read_model(content, weights)
        found = _ports(model.inputs), _ports(model.outputs[:1])
    wanted = _image_ports(manifest) if manifest.task == "sr" else _video_ports(manifest)
    if found != wanted:
        raise UserError(
            f"{file} takes {_listed(found[0])} and gives {_listed(found[1])}, by its manifest {_listed(wanted[0])} and"
            f" {_listed(wanted[1])}; export the model again"
        )
    return model


#: element type and shape of inputs or outputs
_Ports = list[tuple[str, list[int]]]


def _ports(ports: Iterable[Any]) -> _Ports:
    return [(port.get_element_type().get_type_name(), list(port.get_partial_shape().to_shape())) for port in ports]


def _image_ports(manifest: Manifest) -> tuple[_Ports, _Ports]:
    enlarged = [manifest.scale * side for side in manifest.tile]
    return [("u8", [1, *manifest.tile, 3])], [("u8", [1, *enlarged, 3])]


def _video_ports(manifest: Manifest) -> tuple[_Ports, _Ports]:
    still, frames = [1, *manifest.tile], [manifest.frames or 1, *manifest.tile]
    video = [1, *frames] if manifest.channels == 1 else [1, manifest.channels, *frames]
    return [("f32", still), ("f32", [1, *frames]), ("f32", still)], [("f32", video)]


def _listed(ports: _Ports) -> str:
    return ", ".join(f"{kind} {'x'.join(map(str, shape))}" for kind, shape in ports) or "nothing"


def compile_graph(
    core: openvino.Core,
    graph: openvino.Model,
    device: str = "CPU",
    *,
    precision: Precision = "f32",
    hint: Literal["LATENCY", "THROUGHPUT"] = "LATENCY",
    settings: Mapping[str, Any] | None = None,
    exact: bool = True,
) -> openvino.CompiledModel:
    """A graph compiled for one inference at a time, or as the `hint` says for many.

    `precision` is that of what does not run in integers, on a CPU. What "image_only" and `exact`, by which no product
    saturates on a CPU without VNNI, change is changed in `graph` itself. `settings` are OpenVINO's, such as
    `device_settings` gives them, and win; while a graph goes into their CACHE_DIR or comes out of it, other processes wait.
    Raises UserError for a cache folder that cannot be written.
    """
    config: dict[str, Any] = {"PERFORMANCE_HINT": hint}
    if device == "CPU":
        config["INFERENCE_PRECISION_HINT"] = precision_hint(precision)
        graph = prepared(graph, precision)
        if exact:
            compute_saturating_in_f32(graph)
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

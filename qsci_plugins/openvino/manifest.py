"""What a model folder holds, as `manifest.json` says it: checked byte for byte before anything is run."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from qsci_plugins.errors import UserError

__all__ = [
    "MANIFEST",
    "VERSION",
    "Manifest",
    "Route",
    "StoredFile",
    "Task",
    "load_manifest",
    "read_stored",
    "stored",
]

#: "sr" enlarges images, "sci" reconstructs videos from snapshot measurements
Task = Literal["sr", "sci"]

MANIFEST = "manifest.json"
VERSION = 3
_FORMAT = "qsci-openvino"
_NO_SUM = "0" * 64


@dataclass(frozen=True)
class StoredFile:
    """A file of the folder, with what it must hold."""

    name: str
    bytes: int
    sha256: str

    @property
    def weights_name(self) -> str:
        """Of a graph: the name of the file where OpenVINO looks for its constants."""
        return str(Path(self.name).with_suffix(".bin"))


@dataclass(frozen=True)
class Route:
    """The graph for tiles of one image factor, and the activation bits of every quantized layer in it."""

    factor: int
    graph: StoredFile
    bits: dict[str, float]
    #: feature average bit-width over the layers that the scheme counts; 32 where there are none
    fab: float


@dataclass(frozen=True)
class Manifest:
    """A model folder. Every graph is of one static shape.

    Task "sr": uint8 (1,tile,3) RGB to uint8 (1,scale*tile,3). Task "sci": float32 inputs `measurement` (1,tile), `mask`
    (1,frames,tile) and `mask_sum` (1,tile), without zeros, to `video` (1,frames,tile), or (1,3,frames,tile) with
    `channels` 3 (of a Bayer mosaic), not clamped; a measurement is the masked sum of frames in 0..value_range.
    """

    scale: int
    #: height and width of the input
    tile: tuple[int, int]
    #: input pixels beyond which an output pixel does not look, or as many as are worth looking at
    overlap: int
    #: what the network inside takes for white
    value_range: float
    #: the constants of every graph; each .xml has them in a .bin of its name (up to version 2: in this file alone)
    weights: StoredFile
    routes: tuple[Route, ...]
    #: mean gradients below the first and above the second take the routes -1 and 1; None with one route
    thresholds: tuple[float, float] | None = None
    weight_bits: dict[str, float] = field(default_factory=dict)
    #: the versions that wrote the folder, and whatever else is worth knowing
    about: dict[str, Any] = field(default_factory=dict)
    task: Task = "sr"
    #: of a reconstructed video; None for task "sr"
    frames: int | None = None
    #: colours of the output
    channels: int = 3
    #: of what does not run in integers: "f32" where bf16 costs quality, as beside very few levels; "image_only" where the
    #: graph chooses its bits: f32 in what they depend on
    precision: Literal["auto", "f32", "image_only"] = "auto"
    #: the CPUs on which the integer layers give the same sums; "vnni": elsewhere pairs of products may saturate
    exact_on: Literal["all", "vnni"] = "vnni"
    #: what the places of tiles are multiples of: of the network's strides and windows
    period: int = 1

    def route(self, factor: int) -> Route:
        """The route of a factor; the only one where there is one."""
        return next((route for route in self.routes if route.factor == factor), self.routes[0])

    def files(self) -> list[StoredFile]:
        """Every file beside the manifest, once."""
        graphs = self.graphs()
        copies = [replace(self.weights, name=graph.weights_name) for graph in graphs]
        if self.weights not in copies:
            copies = []  # written when graphs had the constants in one file of another name
        return list(dict.fromkeys([self.weights, *copies, *graphs]))

    def graphs(self) -> list[StoredFile]:
        """The graphs of all routes, each once."""
        return list(dict.fromkeys(route.graph for route in self.routes))

    def to_bytes(self) -> bytes:
        """The JSON text, with its own SHA-256 in it (taken with 64 zeros in that place)."""
        content = {"format": _FORMAT, "version": VERSION, "sha256": _NO_SUM, **asdict(self)}
        text = json.dumps(content, indent=1).encode()
        return text.replace(_NO_SUM.encode(), hashlib.sha256(text).hexdigest().encode(), 1)


def stored(name: str, content: bytes) -> StoredFile:
    """The entry of a file's content."""
    return StoredFile(name, len(content), hashlib.sha256(content).hexdigest())


def load_manifest(folder: Path | str) -> Manifest:
    """The manifest of a folder, every file checked.

    Raises UserError, with the reason, for a folder that is no model folder, was written by a newer version, or has a
    missing, truncated or changed file.
    """
    file = Path(folder) / MANIFEST
    try:
        text = file.read_bytes()
    except OSError as error:
        raise UserError(f"{folder} is no model folder: cannot read {MANIFEST} ({error.strerror})") from None
    try:
        content = json.loads(text)
        digest, version = str(content["sha256"]), content["version"]
        if content["format"] != _FORMAT:
            raise KeyError("format")
    except (ValueError, KeyError, TypeError, RecursionError):
        raise UserError(f"{file} is damaged or not ours; export the model again") from None
    if isinstance(version, int) and version > VERSION:
        raise UserError(f"{file} has version {version}, this package reads up to {VERSION}; update qsci-plugins")
    blank = text.replace(digest.encode(), _NO_SUM.encode(), 1)
    if not re.fullmatch("[0-9a-f]{64}", digest) or hashlib.sha256(blank).hexdigest() != digest:
        raise UserError(f"{file} has been changed since it was written (its checksum does not match); export again")
    try:
        manifest = _from_json(content)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise UserError(f"{file} lacks or misspells {error}; export the model again") from None
    for entry in manifest.files():
        read_stored(folder, entry)
    return manifest


def read_stored(folder: Path | str, entry: StoredFile) -> bytes:
    """The content of a file of the folder. Raises UserError where it is missing, truncated or changed."""
    file = Path(folder) / entry.name
    try:
        if file.stat().st_size != entry.bytes:
            raise UserError(f"{file} has {file.stat().st_size} bytes instead of {entry.bytes}; export the model again")
        content = file.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}; export the model again") from None
    if hashlib.sha256(content).hexdigest() != entry.sha256:
        raise UserError(f"{file} has been changed since it was written (its checksum does not match); export again")
    return content


def _from_json(content: dict[str, Any]) -> Manifest:
    thresholds, version = content["thresholds"], int(content["version"])
    height, width = content["tile"]
    return Manifest(
        scale=int(content["scale"]),
        tile=(int(height), int(width)),
        overlap=int(content["overlap"]),
        value_range=float(content["value_range"]),
        weights=_file(content["weights"]),
        routes=tuple(
            Route(int(route["factor"]), _file(route["graph"]), dict(route["bits"]), float(route["fab"]))
            for route in content["routes"]
        ),
        thresholds=None if thresholds is None else (float(thresholds[0]), float(thresholds[1])),
        weight_bits=dict(content["weight_bits"]),
        about=dict(content["about"]),
        exact_on=_exact_on(content["exact_on"]) if version > 2 else "vnni",
        period=int(content.get("period", 1)),
        **(_of_version_2(content) if version > 1 else {}),
    )


def _of_version_2(content: dict[str, Any]) -> dict[str, Any]:
    """The fields that the first version did not have."""
    task, frames = content["task"], content["frames"]
    if task not in ("sr", "sci"):
        raise ValueError(f"the task {task!r}")
    if (frames is None) != (task == "sr"):
        raise ValueError("frames")
    if content["precision"] not in ("auto", "f32", "image_only"):
        raise ValueError(f"the precision {content['precision']!r}")
    return {
        "task": task,
        "frames": None if frames is None else int(frames),
        "channels": int(content["channels"]),
        "precision": content["precision"],
    }


def _exact_on(cpus: str) -> Literal["all", "vnni"]:
    if cpus not in ("all", "vnni"):
        raise ValueError(f"the CPUs {cpus!r}")
    return "all" if cpus == "all" else "vnni"


def _file(entry: dict[str, Any]) -> StoredFile:
    name = str(entry["name"])
    if Path(name).name != name:
        raise ValueError(f"the file name {name!r}")
    return StoredFile(name, int(entry["bytes"]), str(entry["sha256"]))

"""What a model folder holds, as `manifest.json` says it: checked byte for byte before anything is run."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from qsci_plugins.errors import UserError
from qsci_plugins.files import check_regular

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
_NAME, _MOST = "[A-Za-z0-9_][A-Za-z0-9_.-]{0,200}", 2**16
#: no manifest is as long; that of a network of 2,000 layers has a hundredth of it
_MAX_BYTES = 2**24


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
    #: the CPUs on which the graph gives the same sums; "vnni": elsewhere products may saturate, which our runtime computes
    #: in f32 there (see `precisions`), and others do not
    exact_on: Literal["all", "vnni"] = "vnni"
    #: what the places of tiles are multiples of: of the network's strides and windows
    period: int = 1

    def route(self, factor: int) -> Route:
        """The route of a factor; the only one where there is one."""
        return next((route for route in self.routes if route.factor == factor), self.routes[0])

    def skips_layers(self) -> bool:
        """Whether a route leaves layers out, which have 0 bits in it."""
        return any(bits == 0 for route in self.routes for bits in route.bits.values())

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
    missing, truncated or changed file, and for values that cannot be, whatever checksum stands beside them.
    """
    file = Path(folder) / MANIFEST
    check_regular(file)
    try:
        with file.open("rb") as stream:
            text = stream.read(_MAX_BYTES + 1)
    except OSError as error:
        raise UserError(f"{folder} is no model folder: cannot read {MANIFEST} ({error.strerror})") from None
    try:
        content = json.loads(text) if len(text) <= _MAX_BYTES else {}
        digest, version = content["sha256"], content["version"]
        if content["format"] != _FORMAT or not isinstance(digest, str) or type(version) is not int:
            raise KeyError("format")
    except (ValueError, KeyError, TypeError, RecursionError):
        raise UserError(f"{file} is damaged or not ours; export the model again") from None
    if version > VERSION:
        raise UserError(f"{file} has version {version:.0f}, this package reads up to {VERSION}; update qsci-plugins")
    if not re.fullmatch("[0-9a-f]{64}", digest) or _digest(text, digest) != digest:
        raise UserError(f"{file} has been changed since it was written (its checksum does not match); export again")
    manifest = _validated(file, content)
    for entry in manifest.files():
        read_stored(folder, entry)
    return manifest


def read_stored(folder: Path | str, entry: StoredFile) -> bytes:
    """The content of a file of the folder. Raises UserError where it is missing, no regular file, truncated or changed.

    A link is followed, as caches of downloads have them: what lies there is used where it is what the manifest names.
    """
    file = Path(folder) / entry.name
    check_regular(file)
    try:
        if file.stat().st_size != entry.bytes:
            raise UserError(f"{file} has {file.stat().st_size} bytes instead of {entry.bytes}; export the model again")
        content = file.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}; export the model again") from None
    if hashlib.sha256(content).hexdigest() != entry.sha256:
        raise UserError(f"{file} has been changed since it was written (its checksum does not match); export again")
    return content


def _digest(text: bytes, own: str) -> str:
    """The SHA-256 of a manifest without its own one."""
    return hashlib.sha256(text.replace(own.encode(), _NO_SUM.encode(), 1)).hexdigest()


def _validated(file: Path, content: dict[str, Any]) -> Manifest:
    """Whoever can write a folder can write a checksum that fits: raises UserError for the first value that cannot be."""
    try:
        manifest = _from_json(content)
        mistake = _contradiction(manifest)
    except KeyError as error:
        mistake = f"{error}: the key is missing"
    except (TypeError, ValueError) as error:
        mistake = str(error)
    if mistake is not None:
        raise UserError(f"{file} lacks or misspells {mistake}; export the model again")
    return manifest


def _from_json(content: dict[str, Any]) -> Manifest:
    version = _integer(content, "version", 1, VERSION)
    has_task, thresholds = version > 1, content["thresholds"]
    return Manifest(
        scale=_integer(content, "scale", 1, 64),
        tile=tuple(_integer({"tile": side}, "tile", 1, _MOST) for side in _list(content, "tile", 2, 2)),  # type: ignore[arg-type]
        overlap=_integer(content, "overlap", 0, _MOST),
        value_range=_number(content, "value_range", 2.0**-20, 2.0**20),
        weights=_file(content, "weights", ".bin"),
        routes=tuple(_route(route) for route in _list(content, "routes", 1, 3)),
        thresholds=None
        if thresholds is None
        else tuple(
            _number({"thresholds": level}, "thresholds", 0, 2.0**20) for level in _list(content, "thresholds", 2, 2)
        ),  # type: ignore[arg-type]
        weight_bits=_bits(content, "weight_bits"),
        about=_mapping(content, "about"),
        task=_word(content, "task", ("sr", "sci")) if has_task else "sr",
        frames=_integer(content, "frames", 1, 4096) if has_task and content["frames"] is not None else None,
        channels=_integer(content, "channels", 1, 3) if has_task else 3,
        precision=_word(content, "precision", ("auto", "f32", "image_only")) if has_task else "auto",
        exact_on=_word(content, "exact_on", ("all", "vnni")) if version > 2 else "vnni",
        period=_integer(content, "period", 1, _MOST) if "period" in content else 1,
    )


def _route(route: Any) -> Route:
    content = _mapping({"routes": route}, "routes")
    return Route(
        _integer(content, "factor", -1, 1),
        _file(content, "graph", ".xml"),
        _bits(content, "bits"),
        _number(content, "fab", 0, 64),
    )


def _file(content: Mapping[str, Any], key: str, suffix: str) -> StoredFile:
    """The entry of a file with a plain name: no separators, nothing hidden, nothing that a terminal takes otherwise."""
    entry = _mapping(content, key)
    name, digest = entry["name"], entry["sha256"]
    if not isinstance(name, str) or not re.fullmatch(_NAME + re.escape(suffix), name):
        raise ValueError(f"{key}: {_short(name)} is no plain name of a {suffix} file")
    if not isinstance(digest, str) or not re.fullmatch("[0-9a-f]{64}", digest):
        raise ValueError(f"{key}: {_short(digest)} is no SHA-256")
    return StoredFile(name, _integer(entry, "bytes", 0, 2**48), digest)


def _integer(content: Mapping[str, Any], key: str, low: int, high: int) -> int:
    value = content[key]
    if type(value) is not int or not low <= value <= high:  # truth values are ints to Python
        raise ValueError(f"{key}: {_short(value)} is no integer of {low} to {high}")
    return value


def _number(content: Mapping[str, Any], key: str, low: float, high: float) -> float:
    value = content[key]
    if type(value) not in (int, float) or not low <= value <= high:  # which NaN is not
        raise ValueError(f"{key}: {_short(value)} is no number of {low:g} to {high:g}")
    return float(value)


def _bits(content: Mapping[str, Any], key: str) -> dict[str, float]:
    return {layer: _number({key: bits}, key, 0, 64) for layer, bits in _mapping(content, key).items()}


def _word(content: Mapping[str, Any], key: str, words: tuple[str, ...]) -> Any:
    if content[key] not in words:
        raise ValueError(f"{key}: {_short(content[key])} is none of {', '.join(words)}")
    return content[key]


def _list(content: Mapping[str, Any], key: str, fewest: int, most: int) -> list[Any]:
    value = content[key]
    if not isinstance(value, list) or not fewest <= len(value) <= most:
        raise ValueError(f"{key}: {_short(value)} is no list of {fewest} to {most}")
    return value


def _mapping(content: Mapping[str, Any], key: str) -> dict[str, Any]:
    if not isinstance(content[key], dict):
        raise ValueError(f"{key}: {_short(content[key])} is no mapping")
    return dict(content[key])


def _short(value: Any) -> str:
    return text if len(text := repr(value)) <= 60 else f"{text[:57]}..."


def _contradiction(manifest: Manifest) -> str | None:
    """Which values do not go together, and why; None where all do."""
    factors = sorted(route.factor for route in manifest.routes)
    if factors not in ([0], [-1, 0, 1]):
        return f"routes: their factors are {factors}; one is of 0, three are of -1, 0 and 1"
    if (manifest.thresholds is None) != (len(factors) == 1):
        return "thresholds: there are two where there are three routes, and none where there is one"
    if manifest.thresholds is not None and manifest.thresholds[0] > manifest.thresholds[1]:
        return f"thresholds: {list(manifest.thresholds)} are not in order"
    if (manifest.frames is None) != (manifest.task == "sr"):
        return "frames: networks for video have them, those for images have none"
    if manifest.channels not in ((3,) if manifest.task == "sr" else (1, 3)):
        return f"channels: {manifest.channels} are none of an image or a video"
    if manifest.task == "sci" and manifest.scale != 1:
        return f"scale: a video keeps its size, it is not {manifest.scale} times as large"
    return None

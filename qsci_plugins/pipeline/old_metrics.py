"""metrics.json of version 1, which had a shape for each kind of run, in the shape of version 2."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["from_version_1"]


def from_version_1(old: Mapping[str, Any]) -> dict[str, Any]:
    """The content in version 2: of a quantization run (images or video), or a float training (images or video)."""
    kind = "quantize" if "scheme" in old else "train"
    video = "clips" in old or "shortcuts" in old.get("network", {})
    training = None
    if kind == "train":
        training = {"steps": old["steps"], "examples": old.get("clips", old.get("photos")), "log": []}
    elif "training" in old:
        training = {"steps": old["training"][-1]["step"], "examples": None, "log": old["training"]}
    seconds = old.get("seconds")
    if seconds is None:
        seconds = {"training": old["seconds_of_last_call"]} if "seconds_of_last_call" in old else {}
    return {
        "version": 2,
        "task": "sci" if video else "sr",
        "kind": kind,
        "network": _network(old, video),
        "backend": old.get("backend"),
        "scheme": old.get("scheme"),
        "sets": {name: _video_set(row) if video else _image_set(row) for name, row in old["sets"].items()},
        "operations": old.get("operations"),
        "latency": old.get("latency"),
        "training": training,
        "seconds": seconds,
        "bits": old.get("bits"),
        "float_layers": None,
        "layer_errors": None,
        "machine": old["machine"],
    }


def _network(old: Mapping[str, Any], video: bool) -> dict[str, Any]:
    """Float trainings of images had no such section, those of video a part of it."""
    network = old.get("network", {})
    scales = [row["scale"] for row in old["sets"].values() if "scale" in row]
    scale = 1 if video else network.get("scale", scales[0] if scales else None)
    known = {key: network.get(key) for key in ("architecture", "weights", "settings")}
    return {**known, "scale": scale, "shortcuts": network.get("shortcuts", [])}


def _image_set(row: Mapping[str, Any]) -> dict[str, Any]:
    if "psnr_y" in row:  # of a float training, which had one form
        pieces = {image["name"]: _piece({**image, "fab": 32.0}) for image in row["images"]}
        return {"float": {**_piece({**row, "fab": 32.0}), "pieces": pieces}}
    forms = {}
    for form, numbers in row.items():
        if form == "scale":
            continue
        pieces = {name: _piece(image) for name, image in numbers["images"].items()}
        more = {key: value for key, value in numbers.items() if key not in ("psnr_y", "ssim", "fab", "images")}
        forms[form] = {**_piece(numbers), **more, "pieces": pieces}
    return forms


def _piece(numbers: Mapping[str, Any]) -> dict[str, Any]:
    return {"psnr": _finite(numbers["psnr_y"]), "ssim": numbers["ssim"], "fab": numbers.get("fab")}


def _finite(decibels: float | None) -> float | None:
    """Float trainings wrote the infinite PSNR of equal pictures as it is."""
    return None if decibels is None or decibels == float("inf") else decibels


def _video_set(row: Mapping[str, Any]) -> dict[str, Any]:
    forms = {}
    for form, numbers in row.items():
        rest = {key: value for key, value in numbers.items() if key != "scenes"}
        forms[form] = {**rest, "pieces": numbers["scenes"]}
    return forms

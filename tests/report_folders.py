"""Output folders with made-up numbers, and what a browser would find in a page."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np

from qsci_plugins.report.pictures import Box, Picture, ShownForm, add_pictures, encode

LAYERS = ("head.0", "body.0", "tail.0")
ROWS = [
    {"name": "fp32", "title": "OpenVINO fp32", "median_ms": 200.0, "fast_ms": 190.0, "slowest_ms": 250.0},
    {"name": "int8", "title": "NNCF INT8", "median_ms": None, "fast_ms": None, "slowest_ms": None, "failed": "no <op>"},
    {"name": "ours", "title": "ours", "median_ms": 60.0, "fast_ms": 55.0, "slowest_ms": 70.0},
]
NODES = [
    {"name": "head.0", "type": "Convolution", "input": "u8", "output": "u8"},
    {"name": "tail.0", "type": "Convolution", "input": "u8", "output": "f32"},
]
COUNTS = {"macs": 2e9, "cadyq_bitops": 2e9, "qsci_ops": 2e9, "weight_activation_bitops": 2e12}
MACHINE = {
    "processor": "A CPU",
    "cores": 2,
    "memory_gib": 8.0,
    "system": "Linux",
    "torch": "2.14",
    "devices": {"x": ["cpu"]},
}


def scores(psnr: float, fab: float) -> dict[str, Any]:
    return {"psnr": psnr, "ssim": 0.9, "fab": fab, "pieces": {"a": {"psnr": psnr, "ssim": 0.9, "fab": fab}}}


def metrics(**changes: Any) -> dict[str, Any]:
    return {
        "version": 2,
        "task": "sr",
        "kind": "quantize",
        "network": {"architecture": "edsr", "weights": None, "settings": {}, "scale": 2, "shortcuts": []},
        "backend": "nncf",
        "scheme": {"name": "adabm", "weight_bits": 4},
        "sets": {"Set5": {"float": scores(37.8, 32.0), "torch": scores(37.3, 3.5), "openvino": scores(37.25, 3.5)}},
        "operations": {"input": [360, 640], "float": COUNTS, "quantized": {**COUNTS, "weight_activation_bitops": 1e11}},
        "latency": {
            "tile": [180, 320],
            "threads": 2,
            "repeats": 10,
            "rows": ROWS,
            "precisions": [{"type": "Convolution", "input": "u8", "output": "u8", "count": 1}],
            "nodes": NODES,
        },
        "training": {"steps": 8, "examples": None, "log": [{"step": 4, "loss": 2.5}, {"step": 8, "loss": 1.25}]},
        "seconds": {"calibration": 12.3},
        "bits": {name: {"weight": 4.0, "activation": 3.0 + place} for place, name in enumerate(LAYERS)},
        "float_layers": {},
        "layer_errors": {"whole": 2.0, "layers": {"head.0": 0.5, "body.0": -0.01, "tail.0": 1.0}},
        "machine": MACHINE,
        **changes,
    }


def pixels(seed: int, frames: int = 1, height: int = 40, width: int = 60) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)


def picture(name: str = "a", seed: int = 0, frames: int = 1) -> Picture:
    """Float, ours and the truth, with two tiles side by side."""
    keys = ("float", "ours", "truth")
    forms = [
        ShownForm(key, key, None if key == "truth" else 30.5, encode(pixels(seed + n, frames)), frames)
        for n, key in enumerate(keys)
    ]
    boxes = (Box(0, 0, 40, 30, 3.25, "#3154c4"), Box(0, 30, 40, 60, 5.0, "#ce2e2e"))
    return Picture(name, 40, 60, (30, 20), tuple(forms), boxes)


def run_folder(folder: Path, *pictures: Picture, recipe: str = "version: 1\n", **changes: Any) -> Path:
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text(json.dumps(metrics(**changes)))
    (folder / "recipe.yaml").write_text(recipe, encoding="utf-8")
    add_pictures(folder, pictures)
    return folder


class Page(HTMLParser):
    """The elements of a page with their attributes, its scripts and its visible text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text = ""
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[-1] += data
        elif self._inside != "style":
            self.text += data

    @property
    def data(self) -> Any:
        return json.loads(self.scripts[0])

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

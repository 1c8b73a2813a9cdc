"""Graphs of a network that reconstructs video which are not ours: kept in a model folder, so that our runtime takes them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import openvino

from qsci_plugins.comparing.contenders import Makers
from qsci_plugins.data.snapshots import random_mask
from qsci_plugins.evaluation.baselines import default_int8_graph
from qsci_plugins.openvino.folder import write_folder
from qsci_plugins.openvino.ir import pack
from qsci_plugins.openvino.manifest import Manifest, Route, stored
from qsci_plugins.openvino.precisions import Precision
from qsci_plugins.openvino.signature import Signature
from qsci_plugins.pipeline.task import Loaded, Prepared, task_of
from qsci_plugins.pipeline.video_forms import VideoForm, openvino_video_form
from qsci_plugins.schemes.scheme import QuantizedNetwork

__all__ = ["make_default_int8", "onnx_contenders", "plain_form", "run_routed", "write_plain"]


def make_default_int8(prepared: Prepared) -> openvino.Model:
    """NNCF's default INT8 of the float network at the recipe's tile, the calibration clips mirrored up to it."""
    task = task_of(prepared.recipe)
    return default_int8_graph(task.float_graph(prepared), task.samples(prepared, every=True))


def write_plain(graph: openvino.Model, folder: Path, signature: Signature, overlap: int) -> None:
    """A model folder with one graph."""
    graphs, constants = pack({"model": graph})
    entry, weights = stored("model.xml", graphs["model"]), stored("model.bin", constants)
    manifest = Manifest(
        **signature.for_manifest(), overlap=overlap, weights=weights, routes=(Route(0, entry, {}, 32.0),)
    )
    write_folder(folder, manifest, {entry.name: graphs["model"], weights.name: constants})


def plain_form(folder: Path, loaded: Loaded, overlap: int, threads: int, precision: Precision) -> VideoForm:
    """What `write_plain` wrote, through our runtime."""
    return openvino_video_form(folder, threads, precision)


def run_routed(form: VideoForm, manifest: Manifest) -> Callable[[], object]:
    """Reconstructs one measurement of the size of a tile, which chooses its route."""
    assert manifest.frames is not None
    mask = random_mask(manifest.frames, *manifest.tile)
    reconstruct = form.make(mask)
    measurement = (np.random.default_rng(0).random(mask.shape, dtype=np.float32) * mask).sum(0)
    return lambda: reconstruct(measurement)


def onnx_contenders(
    prepared: Prepared, overlap: int, quantize: Callable[[str], QuantizedNetwork], folder: Path, threads: int
) -> Makers:
    """None: Brevitas' QCDQ export takes networks of one input."""
    return {}

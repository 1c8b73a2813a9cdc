"""The ways to run a network that reconstructs video, all through the same runtime but torch's."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import openvino
import torch
from torch import Tensor

from qsci_plugins.architectures.network import Network
from qsci_plugins.comparing.contenders import (
    STATIC,
    TORCH,
    Contender,
    attempt_contender,
    exported_graph,
    static_network,
    static_scheme,
)
from qsci_plugins.data.snapshots import random_mask
from qsci_plugins.evaluation.baselines import Failed, PlainGraph, Sample, plain_graphs, tile_samples
from qsci_plugins.openvino.convert import convert_like
from qsci_plugins.openvino.folder import name_files, write_folder
from qsci_plugins.openvino.ir import pack
from qsci_plugins.openvino.manifest import Manifest, Route, load_manifest
from qsci_plugins.openvino.precisions import Precision
from qsci_plugins.openvino.signature import VideoSignature
from qsci_plugins.pipeline.video_forms import VideoForm, float_video_form, openvino_video_form
from qsci_plugins.pipeline.video_prepare import VideoPrepared
from qsci_plugins.schemes.placement import Placement, place
from qsci_plugins.schemes.registry import make_scheme
from qsci_plugins.schemes.shortcuts import WithShortcut

__all__ = ["VideoContender", "exported_videos", "plain_placement", "plain_videos"]

VideoContender = Contender[VideoForm]


def exported_videos(folder: Path, threads: int, seconds: float | None = None) -> list[VideoContender]:
    """A model folder: the graph of its middle route alone and, where there are routes, with choosing among them."""
    manifest = load_manifest(folder)
    assert manifest.frames is not None
    alone = _of_folder("ours", "ours", folder, threads, "auto", seconds)
    if manifest.thresholds is None:
        return [alone]
    mask = random_mask(manifest.frames, *manifest.tile)
    reconstruct = alone.way.make(mask)
    measurement = (np.random.default_rng(0).random(mask.shape, dtype=np.float32) * mask).sum(0)
    routed = Contender(
        "routed", "ours, with routing", lambda: reconstruct(measurement), alone.way, files=alone.files, seconds=seconds
    )
    return [alone, routed]


def plain_videos(
    prepared: VideoPrepared, manifest: Manifest, folder: Path, threads: int
) -> list[VideoContender | Failed]:
    """What there is without us, written to `folder`: OpenVINO fp32 and bf16, NNCF's default INT8, torch.

    All of the float network without shortcuts. And static INT8 of it at the recipe's placement, unless that is what the
    recipe makes itself. `manifest` is ours, whose tile and overlap all take. What fails on the network says why.
    """
    network, (height, width) = prepared.float_network, manifest.tile
    assert manifest.frames is not None
    signature = VideoSignature((height, width), network.value_range, manifest.frames, network.channels)

    def row(name: str, title: str, make: Callable[[], VideoContender]) -> VideoContender | Failed:
        return attempt_contender(name, title, make, manifest.tile)

    graphs = plain_graphs(lambda: _graph(network, signature), _samples(prepared, manifest.tile))
    rows: list[VideoContender | Failed] = [
        one if isinstance(one, Failed) else row(one.name, one.title, partial(_plain, one, folder, manifest, threads))
        for one in graphs
    ]
    if prepared.recipe.shortcuts or _adapts(prepared):
        rows.append(row(*STATIC, lambda: _static(prepared, manifest, folder / "static", threads)))
    rows.append(row(*TORCH, lambda: _torch(network, signature)))
    return rows


def _plain(plain: PlainGraph, folder: Path, manifest: Manifest, threads: int) -> VideoContender:
    _write(plain.graph, folder / plain.name, manifest)
    return _of_folder(plain.name, plain.title, folder / plain.name, threads, plain.precision, plain.seconds)


def _of_folder(
    name: str, title: str, folder: Path, threads: int, precision: Precision, seconds: float | None
) -> VideoContender:
    way = openvino_video_form(folder, threads, precision)
    return exported_graph(name, title, folder, way, threads, None if precision == "auto" else precision, seconds)


def _graph(network: Network, signature: VideoSignature) -> openvino.Model:
    return signature.with_ports(convert_like(network.module, signature.examples(), tuned=False))


def _write(graph: openvino.Model, folder: Path, like: Manifest) -> None:
    """A model folder with one graph that is not ours, so that the same runtime takes it."""
    graphs, constants = pack({"model": graph})
    entries, weights, files = name_files(graphs, constants)
    manifest = replace(
        like,
        weights=weights,
        routes=(Route(0, entries["model"], {}, 32.0),),
        thresholds=None,
        weight_bits={},
        precision="auto",
    )
    write_folder(folder, manifest, files)


def _samples(prepared: VideoPrepared, tile: tuple[int, int]) -> list[Sample]:
    """The recipe's calibration clips: measurement, mask and mask_sum of each, mirrored up to the tile alike."""
    inputs = (tile_samples(torch.cat(one), tile) for one in zip(*prepared.batches, strict=True))
    return list(zip(*inputs, strict=True))


def _adapts(prepared: VideoPrepared) -> bool:
    """Whether the recipe's scheme is more than static 8 bits."""
    return prepared.scheme.config != make_scheme(static_scheme(prepared.recipe.scheme)).config


def _static(prepared: VideoPrepared, manifest: Manifest, folder: Path, threads: int) -> VideoContender:
    from qsci_plugins.openvino.export import export_reconstructor

    network = prepared.float_network
    assert manifest.frames is not None
    stock = replace(prepared, network=network, placement=plain_placement(prepared))
    quantized = static_network(stock, prepared.recipe.backend)
    start = time.perf_counter()
    export_reconstructor(
        quantized,
        network.module,
        folder,
        tile=manifest.tile,
        frames=manifest.frames,
        channels=network.channels,
        mode="static",
        overlap=manifest.overlap,
    )
    return _of_folder(*STATIC, folder, threads, "auto", time.perf_counter() - start)


def plain_placement(prepared: VideoPrepared) -> Placement:
    """The recipe's placement by the names of the float network, where a layer beside a shortcut has its own again."""
    module = prepared.network.module
    names: dict[str, list[str]] = {"scheme": [], "eight_bit": []}
    for name, precision in place(module, prepared.placement).items():
        parent, _, leaf = name.rpartition(".")
        beside = isinstance(module.get_submodule(parent), WithShortcut)
        if not (beside and leaf == "shortcut"):
            names[precision].append(parent if beside else name)
    return Placement(tuple(names["scheme"]), tuple(names["eight_bit"]))


def _torch(network: Network, signature: VideoSignature) -> VideoContender:
    examples = signature.examples()

    @torch.no_grad()
    def run() -> Tensor:
        output: Tensor = network.module(*examples)
        return output

    return Contender(*TORCH, run, float_video_form(network))

"""What a run moves to its device: shown on torch's `meta` device, which has shapes and no values, and mixes with no other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_video import TINY_VIDEO
from torch import nn

from qsci_plugins.pipeline.networks import move_networks
from qsci_plugins.pipeline.run import prepared_on
from qsci_plugins.pipeline.task import Prepared, task_of
from qsci_plugins.progress import Progress
from qsci_plugins.recipes.reading import make_recipe
from qsci_plugins.schemes.backend import load_backend
from qsci_plugins.schemes.scheme import QuantizedNetwork, inputs_of

IMAGES: dict[str, Any] = {
    "version": 1,
    "model": {"architecture": "edsr", "scale": 2, "settings": {"blocks": 1, "width": 4}},
    "scheme": {"name": "qsci", "attention": [], "weight_bits": 4, "activation_bits": 4},
    "calibrate": {"count": 3, "patch": 16, "batch": 2},
    "export": {"openvino": {"mode": "none"}},
}


def prepared(mapping: dict[str, Any], backend: str) -> Prepared:
    recipe = make_recipe({**mapping, "backend": backend})
    return task_of(recipe).prepare(recipe, None, Progress())


def quantized(ready: Prepared) -> QuantizedNetwork:
    network = ready.network
    backend = load_backend(ready.recipe.backend)
    return backend.quantize(network.module, ready.scheme, ready.placement, ready.batches, network.value_range)


def devices(module: nn.Module) -> set[str]:
    return {tensor.device.type for tensor in (*module.parameters(), *module.buffers())}


@pytest.mark.parametrize("backend", ["nncf", "brevitas"])
@pytest.mark.parametrize("mapping", [IMAGES, TINY_VIDEO], ids=["images", "video"])
def test_networks_and_batches_go_together_and_leave_nothing_behind(
    mapping: dict[str, Any], backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready = prepared(mapping, backend)
    network = quantized(ready)
    expected = [inputs_of(batch)[0].shape for batch in ready.batches]
    moved = prepared_on("meta", ready)
    move_networks("meta", ready, network)
    assert moved.device == "meta"
    assert (ready.device, {inputs_of(batch)[0].device.type for batch in ready.batches}) == ("cpu", {"cpu"})
    for module in (moved.network.module, moved.float_network.module, network.model):
        assert devices(module) == {"meta"}
    assert [inputs_of(batch)[0].shape for batch in moved.batches] == expected
    for model in (moved.network.module, network.model):
        with torch.no_grad():
            output = model(*inputs_of(moved.batches[0]))
        assert output.device.type == "meta"


def test_a_float_network_beside_that_with_shortcuts_is_moved_too() -> None:
    ready = prepared(TINY_VIDEO, "brevitas")
    assert ready.network.module is not ready.float_network.module
    move_networks("meta", replace(ready, batches=[]))
    assert devices(ready.float_network.module) == devices(ready.network.module) == {"meta"}

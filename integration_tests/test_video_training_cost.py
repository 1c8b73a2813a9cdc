"""What a Q-SCI training step costs beside the float network's."""

from __future__ import annotations

import os
from contextlib import nullcontext

import pytest
import torch

from qsci_plugins.architectures.registry import load_network
from qsci_plugins.comparing.cost import Pairs
from qsci_plugins.data.clips import SnapshotClips
from qsci_plugins.data.scenes import synthetic_scene
from qsci_plugins.data.snapshots import random_mask
from qsci_plugins.schemes.backend import load_backend
from qsci_plugins.schemes.placement import Placement
from qsci_plugins.schemes.registry import make_scheme
from qsci_plugins.schemes.rounding import quantize_again_in_backward
from qsci_plugins.schemes.shortcuts import SHORTCUTS, add_shortcuts

PAIRS = int(os.environ.get("QSCI_COST_PAIRS", "8"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["nncf", "brevitas"])
def test_a_training_step_costs_at_most_1_9_of_the_float_networks(name: str) -> None:
    """EfficientSCI-T with everything that Q-SCI adds, in float32, as recipes train it on a CPU."""
    network = load_network("efficientsci_t", None)
    clips = SnapshotClips([synthetic_scene(8, 80, 80)], random_mask(8, 64, 64), 64, resize=False)
    *inputs, frames = clips.draw(0, 0, 2)
    stock = add_shortcuts(network.module, ["fem.*", "vrm.*"])
    scheme = make_scheme({"name": "qsci", "weight_bits": 4, "activation_bits": 4})
    quantized = load_backend(name).quantize(stock, scheme, Placement(eight_bit=(SHORTCUTS,)), [tuple(inputs)], 1.0)

    def step(model: torch.nn.Module, again: bool) -> None:
        with quantize_again_in_backward() if again else nullcontext():
            output = model(*inputs)
        (output - frames).square().mean().backward()
        model.zero_grad(set_to_none=True)

    plain = network.module.train().to(memory_format=torch.channels_last_3d)
    quantized.model.train().to(memory_format=torch.channels_last_3d)
    measured = Pairs().measure(lambda: step(plain, False), lambda: step(quantized.model, True), PAIRS).summary()
    print(name, measured)
    assert measured["ratio"] <= 1.9

"""What a step of a float training costs beside its forward, backward and Adam alone."""

from __future__ import annotations

import copy
import os
import time

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qsci_plugins.architectures.registry import load_network
from qsci_plugins.comparing.cost import Pairs
from qsci_plugins.comparing.processes import torch_threads
from qsci_plugins.data.patches import PatchPairs
from qsci_plugins.training.loop import train_network
from qsci_plugins.training.settings import FloatTraining

PAIRS = int(os.environ.get("QSCI_COST_PAIRS", "8"))
_FIRST = 2  # steps in which memory is still found


@pytest.mark.slow
def test_a_step_takes_at_most_8_percent_more_than_its_computation() -> None:
    """EDSR-baseline x4 on 16 patches of 48x48: the rest is a draw, copies, the average of the weights and the scalars."""
    model = load_network("edsr", None, 4, blocks=16, width=64).module
    noise = np.random.default_rng(0).integers(0, 256, (8, 500, 600, 3), dtype=np.uint8)
    examples = PatchPairs(noise, scale=4, patch=48)
    beside = copy.deepcopy(model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    adam = torch.optim.Adam(beside.parameters(), lr=1e-4)
    batch = tuple(part.contiguous(memory_format=torch.channels_last) for part in examples.draw(0, 0, 16))

    def loss(network: nn.Module, batch: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, Tensor]]:
        return F.l1_loss(network(batch[0]).float(), batch[1]), {}

    pairs = Pairs()
    resumed = time.perf_counter()

    def on_step(step: int, scalars: dict[str, float]) -> None:
        nonlocal resumed
        whole = time.perf_counter() - resumed
        began = time.perf_counter()
        loss(beside, batch)[0].backward()
        adam.step()
        adam.zero_grad(set_to_none=True)
        if step > _FIRST:
            pairs.add(time.perf_counter() - began, whole)
        resumed = time.perf_counter()

    # the process that draws starts beside the first step
    settings = FloatTraining(steps=PAIRS + _FIRST, checkpoint_every=1000, cpu=True, workers=1).loop()
    with torch_threads(2):
        train_network(model, loss, lambda s, r, w: examples.draw(0, s, 16, r, w), settings, on_step=on_step)
    summary = pairs.summary()
    print(summary)
    assert summary["ratio"] <= 1.08, summary

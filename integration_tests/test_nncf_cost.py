"""What quantized training and evaluation cost beside the float network, on this machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from qsci_plugins.architectures.sr.edsr import EDSR
from qsci_plugins.nncf.backend import quantize
from qsci_plugins.schemes.placement import Placement
from qsci_plugins.schemes.registry import make_scheme

#: at most this many times the float network's seconds: forward and backward, and forward without gradients
LIMITS = {"adabm": (1.8, 1.4), "qsci": (1.8, 1.4), "cadyq": (2.5, 1.4)}


@pytest.fixture(autouse=True)
def two_threads() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
@pytest.mark.parametrize("name", LIMITS)
def test_a_step_and_an_evaluation_cost_little_more_than_float(name: str) -> None:
    torch.manual_seed(0)
    stock = EDSR(blocks=8, width=64, scale=2)
    images, targets = torch.rand(16, 3, 48, 48) * 255, torch.rand(16, 3, 96, 96) * 255
    settings = {"name": name, **({"attention": []} if name == "qsci" else {})}
    placement = Placement(("body.*",))
    quantized = quantize(stock, make_scheme(settings), placement, [images[:4]], 255.0).model

    def step(model: nn.Module) -> None:
        model.zero_grad()
        (model(images) - targets).abs().mean().backward()

    @torch.no_grad()
    def evaluation(model: nn.Module) -> Tensor:
        return model(images)

    for run, limit in zip((step, evaluation), LIMITS[name], strict=True):
        assert _ratio(run, quantized, stock) <= limit


def _ratio(run: Callable[[nn.Module], Any], model: nn.Module, reference: nn.Module, rounds: int = 7) -> float:
    """The median over rounds of the time of one beside the other, one right after the other."""
    ratios = []
    for _ in range(rounds + 1):
        seconds = []
        for each in (reference, model):
            started = time.perf_counter()
            run(each)
            seconds.append(time.perf_counter() - started)
        ratios.append(seconds[1] / seconds[0])
    return statistics.median(ratios[1:])

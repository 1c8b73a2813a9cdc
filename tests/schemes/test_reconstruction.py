"""Weights are rounded column by column, in blocks that change nothing."""

from __future__ import annotations

import time

import pytest
import torch
from torch import Tensor, nn

from qsci_plugins.errors import UserError
from qsci_plugins.schemes.reconstruction import _round_columns, reconstruct_weights
from qsci_plugins.schemes.scheme import LayerQuantizers
from qsci_plugins.schemes.weight import ChannelWeight, largest_pair_sums, saturating


def one_by_one(weight: Tensor, hessian: Tensor, step: Tensor, bound: Tensor, damping: float) -> Tensor:
    """GPTQ as the paper writes it down."""
    mean = hessian.diagonal().mean().clamp_min(1e-12)
    hessian = hessian + damping * mean * torch.eye(len(hessian), dtype=hessian.dtype)
    order = torch.argsort(hessian.diagonal(), descending=True, stable=True)
    upper = torch.linalg.cholesky(torch.linalg.inv(hessian[order][:, order]), upper=True)
    rest = weight[:, order].clone()
    rounded = torch.zeros_like(rest)
    for j in range(rest.shape[1]):
        column = rest[:, j : j + 1]
        rounded[:, j : j + 1] = (column / step).round().clamp(min=-bound, max=bound) * step
        error = (column - rounded[:, j : j + 1]) / upper[j, j]
        rest[:, j + 1 :] -= error * upper[j : j + 1, j + 1 :]
    return rounded[:, torch.argsort(order)]


@pytest.mark.parametrize(("inputs", "places"), [(100, 500), (128, 500), (300, 500), (300, 32)])
def test_blocks_round_as_single_columns_do(inputs: int, places: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(places, inputs, generator=generator) @ torch.randn(inputs, inputs, generator=generator)
    hessian, weight = (x.T @ x).double(), torch.randn(16, inputs, generator=generator).double()
    step, bound = weight.abs().amax(1, keepdim=True) / 7, torch.full((16, 1), 7.0).double()
    assert torch.equal(
        _round_columns(weight, hessian, step, bound, 0.01), one_by_one(weight, hessian, step, bound, 0.01)
    )


@pytest.mark.parametrize("order", ["channels", "any"])
def test_no_pair_of_rounded_weights_saturates(order: str) -> None:
    torch.manual_seed(0)
    model = nn.Conv2d(8, 32, 3)
    nn.init.normal_(model.weight)
    quantizer = ChannelWeight(model.weight, 8)
    assert saturating(quantizer.integers(model.weight), 255.0).any()
    before = quantizer.step.clone()
    quantizer.limit(model.weight, 255.0)
    assert (quantizer.step > before).any()
    assert (quantizer.step / before).mean() < 1.6
    images = torch.rand(4, 8, 20, 20) * (torch.rand(8, 1, 1) if order == "any" else 1)
    reconstruct_weights(model, {"": LayerQuantizers(None, quantizer)}, lambda: model(images))
    levels = (model.weight.detach() / quantizer.step).round()
    assert largest_pair_sums(levels).max() <= 124
    assert torch.equal(quantizer.qparams(model.weight).scale, quantizer.step)
    assert torch.allclose(quantizer(model.weight), model.weight, atol=1e-6)


def test_a_wide_layer_takes_seconds_and_says_so() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2048, 256))
    reported: list[tuple[int, int]] = []
    started = time.process_time()
    reconstruct_weights(
        model,
        {"0": LayerQuantizers(None, ChannelWeight(model[0].weight, 4))},
        lambda: model(torch.randn(64, 2048)),
        on_layer=lambda done, total: reported.append((done, total)),
    )
    assert time.process_time() - started < 10
    assert reported == [(0, 1), (1, 1)]


@pytest.mark.parametrize("value", [2.0**66, float("inf")])
def test_inputs_beyond_all_arithmetic_are_an_error_that_names_the_layer(value: float) -> None:
    model = nn.Sequential(nn.Linear(16, 4))
    with pytest.raises(UserError, match=r"^0: its inputs of up to .* are too large"):
        reconstruct_weights(
            model,
            {"0": LayerQuantizers(None, ChannelWeight(model[0].weight, 4))},
            lambda: model(torch.rand(64, 16).add(0.1) * value),
        )

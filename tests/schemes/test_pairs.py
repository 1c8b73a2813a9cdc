"""Weights of which no pair saturates on a CPU without VNNI, at no larger a step than that takes."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qsci_plugins.schemes.weight import ChannelWeight, largest_pair_sums


def weights(seed: int, inputs: int, skew: float) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(7, inputs, 3, 3, generator=generator).sign() * torch.rand(
        7, inputs, 3, 3, generator=generator
    ).pow(skew)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    inputs=st.integers(2, 5),
    skew=st.floats(0.2, 6),
    reach=st.integers(64, 255),
)
def test_no_pair_saturates_and_the_step_stays_below_a_bit(seed: int, inputs: int, skew: float, reach: int) -> None:
    w = weights(seed, inputs, skew)
    quantizer = ChannelWeight(w, 8)
    with torch.no_grad():
        free = quantizer.qparams(w)
        sums = largest_pair_sums(quantizer.integers(w))
        quantizer.reach.fill_(reach)
        limited = quantizer.qparams(w)
        assert bool((largest_pair_sums(quantizer.integers(w)) * reach <= 32767).all())
    ratio = (limited.scale / free.scale).flatten()
    assert torch.equal(ratio > 1, sums * reach > 32767)
    most = 32767 // reach
    # what the pair's sum asks for, and a level for rounding anew
    assert bool((ratio <= torch.maximum(torch.ones(()), (sums + 1) / (most - 1)) + 1e-6).all())
    assert bool((limited.high == limited.high.round()).all())


def test_a_pair_just_too_large_costs_little() -> None:
    w = torch.zeros(1, 2, 1, 64)
    w[0, :, 0, 0] = torch.tensor([127.0, 10.0])  # 137 where 128 fit
    w[0, :, 0, 1:] = torch.linspace(-50, 50, 126).reshape(2, 63)
    quantizer = ChannelWeight(w, 8)
    with torch.no_grad():
        quantizer.step.fill_(1.0)
        quantizer.reach.fill_(255.0)
        assert quantizer.qparams(w).scale.item() < 1.1
        quantizer.reach.fill_(200.0)
        assert quantizer.qparams(w).scale.item() == 1.0

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qsci_plugins.schemes.activation import RangeActivation
from qsci_plugins.schemes.bit_width import MappedBitWidth, StaticBitWidth, record_bits
from qsci_plugins.schemes.content import Content, set_content
from qsci_plugins.schemes.quantizer import Mode
from qsci_plugins.schemes.rounding import int8_bounds


def _observed(x: torch.Tensor, activation: RangeActivation) -> RangeActivation:
    activation.mode = Mode.OBSERVE
    activation(x)
    activation.initialise()
    activation.mode = Mode.ON
    return activation


@settings(max_examples=40, deadline=None)
@given(bits=st.integers(2, 8), shift=st.floats(-2, 2), seed=st.integers(0, 100))
def test_integer_form_fits_int8_and_holds_zero(bits: int, shift: float, seed: int) -> None:
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(seed)) + shift
    activation = _observed(x, RangeActivation(StaticBitWidth(bits), integer=True))
    p = activation.qparams(x)
    low, high = p.low.item(), p.high.item()
    assert p.offset is None
    assert low == round(low)
    assert high - low == 2**bits - 1
    assert (low >= -128 and high <= 127) or (low >= 0 and high <= 255)
    assert activation(torch.zeros(1, 3, 2, 2)).abs().max() == 0


@settings(max_examples=40, deadline=None)
@given(shift=st.floats(-3, 3), seed=st.integers(0, 100))
def test_an_asymmetric_range_takes_all_levels_for_itself(shift: float, seed: int) -> None:
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(seed)) + shift
    activation = _observed(x, RangeActivation(StaticBitWidth(8), integer=True, asymmetric=True))
    p = activation.qparams(x)
    low, high = int(p.low), int(p.high)
    assert high - low == 255
    assert int8_bounds(low, high) is not None
    assert activation(torch.zeros(1, 3, 2, 2)).abs().max() == 0
    assert (activation(x) - x).abs().max() <= 1.001 * p.scale
    assert p.scale.item() == pytest.approx((max(x.max().item(), 0) - min(x.min().item(), 0)) / 255, rel=1e-5)


def test_a_tensor_that_was_never_negative_keeps_all_levels_above_zero() -> None:
    activation = _observed(torch.rand(2, 3, 8, 8), RangeActivation(StaticBitWidth(8), integer=True))
    with torch.no_grad():
        activation.lower.fill_(-0.3)  # training may push it there
    p = activation.qparams(torch.rand(1, 3, 4, 4))
    assert (p.low.item(), p.high.item()) == (0.0, 255.0)


def test_a_batch_of_mixed_bits_equals_its_samples_alone() -> None:
    x = torch.randn(3, 4, 6, 6, generator=torch.Generator().manual_seed(0))
    activation = _observed(x, RangeActivation(MappedBitWidth(4, (2, 8)), integer=True))
    factors = torch.tensor([-1.0, 0.0, 1.0])
    try:
        set_content(Content(factors, factors, factors))
        with record_bits() as ledger:
            together = activation(x)
        assert ledger.of(activation).tolist() == [3.0, 4.0, 5.0]
        for i in range(3):
            set_content(Content(factors[i : i + 1], factors[i : i + 1], factors[i : i + 1]))
            assert torch.equal(activation(x[i : i + 1])[0], together[i])
            assert len(torch.unique(together[i])) <= 2 ** (3 + i)
    finally:
        set_content(None)


def test_bit_aware_clipping_lowers_the_error_at_few_bits() -> None:
    x = torch.randn(4, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    activation = _observed(x, RangeActivation(StaticBitWidth(3), integer=True, clipping=1.0))
    with torch.no_grad():
        before = (activation(x) - x).square().mean()
        activation.refine(x)
        after = (activation(x) - x).square().mean()
    assert after < 0.7 * before


def test_a_trained_quantizer_can_be_copied() -> None:
    x = torch.randn(2, 3, 4, 4)
    activation = _observed(x, RangeActivation(MappedBitWidth(4), integer=True))
    activation(x).sum().backward()
    other = copy.deepcopy(activation)
    with torch.no_grad():
        other.upper.mul_(2)
        assert not torch.equal(other(x), activation(x))


@pytest.mark.parametrize("integer", [False, True])
def test_mappings_get_gradients(integer: bool) -> None:
    x = torch.randn(2, 3, 8, 8)
    activation = _observed(x, RangeActivation(MappedBitWidth(4, (2, 8) if integer else None), integer=integer))
    activation(x).square().sum().backward()
    assert activation.bit_width.measure.grad.abs().item() > 0  # type: ignore[union-attr]
    assert activation.upper.grad.abs().item() > 0

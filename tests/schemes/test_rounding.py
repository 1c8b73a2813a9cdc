from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from qsci_plugins.schemes.rounding import dequantize, fake_quantize, round_ste, to_integers


def _reference(x: Tensor, scale: Tensor, offset: Tensor | None, low: Tensor, high: Tensor) -> Tensor:
    """The same in plain autograd operations."""
    shifted = x if offset is None else x - offset
    z = round_ste(torch.minimum(torch.maximum(shifted / scale, low), high))
    return dequantize(z, scale, offset)


@pytest.mark.parametrize("with_offset", [False, True])
@pytest.mark.parametrize("shape", [(), (1,), (4, 1, 1, 1), (1, 3, 1, 1)])
def test_gradients_equal_those_of_plain_operations(shape: tuple[int, ...], with_offset: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, 3, 5, 6, generator=generator, dtype=torch.float64)
    scale = (torch.rand(shape, generator=generator, dtype=torch.float64) + 0.1).requires_grad_()
    offset = torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_() if with_offset else None
    low = torch.full(shape, -3.0, dtype=torch.float64).requires_grad_()
    high = torch.full(shape, 4.0, dtype=torch.float64).requires_grad_()
    upstream = torch.randn(x.shape, generator=generator, dtype=torch.float64)
    leaves = [leaf for leaf in (x.requires_grad_(), scale, offset, low, high) if leaf is not None]

    output = fake_quantize(x, scale, offset, low, high)
    gradients = torch.autograd.grad((output * upstream).sum(), leaves)
    expected_output = _reference(x, scale, offset, low, high)
    expected = torch.autograd.grad((expected_output * upstream).sum(), leaves)

    torch.testing.assert_close(output, expected_output)
    for gradient, reference in zip(gradients, expected, strict=True):
        torch.testing.assert_close(gradient, reference)


@settings(max_examples=50, deadline=None)
@given(
    bits=st.integers(2, 8),
    scale=st.floats(1e-3, 10),
    zero_point=st.integers(0, 255),
    seed=st.integers(0, 1000),
)
def test_integers_stay_in_range_and_are_the_nearest(bits: int, scale: float, zero_point: int, seed: int) -> None:
    low, high = torch.tensor(float(-zero_point)), torch.tensor(float(2**bits - 1 - zero_point))
    x = torch.randn(64, generator=torch.Generator().manual_seed(seed)) * scale * 100
    z = to_integers(x, torch.tensor(scale), None, low, high)
    assert torch.equal(z, z.round())
    assert z.min() >= low
    assert z.max() <= high
    assert len(torch.unique(z)) <= 2**bits
    inside = (x / scale >= low) & (x / scale <= high)
    assert ((dequantize(z, torch.tensor(scale), None) - x).abs()[inside] <= scale * 0.5001).all()


def test_half_precision_is_quantized_in_single() -> None:
    x = torch.linspace(-1, 1, 301).bfloat16()
    scale = torch.tensor(1 / 127)
    output = fake_quantize(x, scale, None, torch.tensor(-127.0), torch.tensor(127.0))
    assert output.dtype == torch.float32
    assert torch.equal(output, fake_quantize(x.float(), scale, None, torch.tensor(-127.0), torch.tensor(127.0)))

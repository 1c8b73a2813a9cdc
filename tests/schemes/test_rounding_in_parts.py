"""Large tensors are quantized part by part; nobody may notice."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from qsci_plugins.schemes import rounding
from qsci_plugins.schemes.rounding import dequantize, fake_quantize, round_ste, to_integers

SHAPES = [(), (1,), (5, 1, 1, 1), (1, 6, 1, 1), (6, 1, 1), (5, 6, 1, 1)]


def reference(x: Tensor, scale: Tensor, offset: Tensor | None, low: Tensor, high: Tensor) -> Tensor:
    shifted = x if offset is None else x - offset
    return dequantize(round_ste(torch.minimum(torch.maximum(shifted / scale, low), high)), scale, offset)


@pytest.mark.parametrize("elements", [10, 50, 200, 300, 10000])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("with_offset", [False, True])
def test_parts_make_no_difference(
    monkeypatch: pytest.MonkeyPatch, elements: int, shape: tuple[int, ...], with_offset: bool
) -> None:
    monkeypatch.setattr(rounding, "_ELEMENTS", elements)
    generator = torch.Generator().manual_seed(0)

    def parameter(low: float, high: float) -> Tensor:
        value = torch.rand(shape, generator=generator, dtype=torch.float64) * (high - low) + low
        return value.requires_grad_()

    x = torch.randn(5, 6, 4, 3, generator=generator, dtype=torch.float64).requires_grad_()
    scale, low, high = parameter(0.1, 0.4), parameter(-6, -2), parameter(2, 5)
    offset = parameter(-0.5, 0.5) if with_offset else None
    upstream = torch.randn(x.shape, generator=generator, dtype=torch.float64)
    leaves = [leaf for leaf in (x, scale, offset, low, high) if leaf is not None]
    output = fake_quantize(x, scale, offset, low, high)
    gradients = torch.autograd.grad(output, leaves, upstream)
    expected = reference(x, scale, offset, low, high)
    for got, wanted in zip(gradients, torch.autograd.grad(expected, leaves, upstream), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-12)
    with torch.no_grad():
        plain = dequantize(to_integers(x, scale, offset, low, high), scale, offset)
        assert torch.equal(output, plain)
        assert torch.equal(fake_quantize(x, scale, offset, low, high), plain)


def test_strided_and_expanded_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounding, "_ELEMENTS", 20)
    x = torch.randn(4, 5, 6, generator=torch.Generator().manual_seed(0)).permute(2, 0, 1).requires_grad_()
    scale = torch.tensor(0.3, requires_grad=True)
    low, high = torch.tensor(-2.0), torch.tensor(3.0)
    got = torch.autograd.grad(fake_quantize(x, scale, None, low, high).sum(), (x, scale))
    wanted = torch.autograd.grad(reference(x, scale, None, low, high).sum(), (x, scale))
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b)


def test_a_sample_gets_what_it_gets_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounding, "_ELEMENTS", 150)
    x = torch.randn(5, 6, 4, 3, generator=torch.Generator().manual_seed(0))
    scale = torch.rand(5, 1, 1, 1, generator=torch.Generator().manual_seed(1)) + 0.1
    low, high = torch.tensor(-4.0), torch.tensor(3.0)
    together = fake_quantize(x, scale, None, low, high)
    for index in range(5):
        alone = fake_quantize(x[index : index + 1], scale[index : index + 1], None, low, high)
        assert torch.equal(alone[0], together[index])

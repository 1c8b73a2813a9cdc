"""Kernels against plain operations: the same values and gradients, on a GPU or in Triton's interpreter."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor

from qsci_plugins.schemes.activation import RangeActivation
from qsci_plugins.schemes.bit_selector import BitSelector
from qsci_plugins.schemes.bit_width import MappedBitWidth, StaticBitWidth
from qsci_plugins.schemes.content import Content, set_content
from qsci_plugins.schemes.lsq import LearnedStepActivation, LearnedStepWeight
from qsci_plugins.schemes.mixture import hard_forward_soft_backward
from qsci_plugins.schemes.pams import MaxWeight, SymmetricActivation
from qsci_plugins.schemes.quantizer import Mode, Quantizer
from qsci_plugins.schemes.rounding import fake_quantize, quantize_again_in_backward
from qsci_plugins.schemes.weight import ChannelWeight

pytest.importorskip("triton", reason="the kernels need Triton, which this torch came without")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cpu":
    import triton

    if not triton.knobs.runtime.interpret:
        pytest.skip("without a GPU the kernels need TRITON_INTERPRET=1", allow_module_level=True)

from qsci_plugins.schemes.fused import quantizing  # noqa: E402  where Triton is


@pytest.fixture(autouse=True)
def _no_content() -> Iterator[None]:
    set_content(None)
    yield
    set_content(None)


def fitted(quantizer: Quantizer, x: Tensor) -> Quantizer:
    quantizer.mode = Mode.OBSERVE
    quantizer(x)
    quantizer.mode = Mode.ON
    quantizer.initialise()
    return quantizer


def signed_values(seed: int, shape: tuple[int, ...] = (4, 6, 5, 7)) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def mapped(bits: int, measure: float) -> MappedBitWidth:
    bit_width = MappedBitWidth(bits, (2, 8))
    torch.nn.init.constant_(bit_width.measure, measure)
    return bit_width


ACTIVATIONS: dict[str, Callable[[int], Quantizer]] = {
    "lsq": lambda bits: LearnedStepActivation(bits, integer=True),
    "adabm static": lambda bits: RangeActivation(StaticBitWidth(bits), integer=True),
    "adabm asymmetric": lambda bits: RangeActivation(StaticBitWidth(bits), integer=True, asymmetric=True),
    "adabm mapped": lambda bits: RangeActivation(mapped(bits, 0.3), integer=True),
    "adabm one bit down": lambda bits: RangeActivation(mapped(bits, -0.9), integer=True),
    "pams": lambda bits: SymmetricActivation((bits,), integer=True),
}
WEIGHTS: dict[str, Callable[[Tensor, int], Quantizer]] = {
    "lsq": lambda w, bits: LearnedStepWeight(len(w), w.dim(), bits).start(w, search=True),
    "adabm": lambda w, bits: ChannelWeight(w, bits),
    "cadyq": lambda w, bits: MaxWeight(bits, per_channel=True),
}


def compared(quantizer: Quantizer, x: Tensor) -> None:
    """Values, gradients and the bounds of the next move are those of plain operations."""
    upstream = torch.randn(x.shape, generator=torch.Generator().manual_seed(7)).to(x)
    plain = copy.deepcopy(quantizer)
    results = []
    for module in (plain, quantizer):
        given = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
        if module is plain:
            output = module.simulate(given)
            bits = module.qparams(given).bit_width
        else:
            found = module.fused(given, quantizing)
            assert found is not None
            output, bits = found
        loss = (output * upstream).sum()
        if bits.requires_grad:
            loss = loss + bits.flatten().sum() * 3
        loss.backward()
        results.append((output.detach(), bits.detach().flatten(), given.grad, module))
    expected, got = results
    torch.testing.assert_close(got[0], expected[0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(got[1], expected[1])
    torch.testing.assert_close(got[2], expected[2])
    assert got[0].stride() == x.stride()
    for (name, mine), reference in zip(quantizer.named_parameters(), plain.parameters(), strict=True):
        if reference.grad is None:
            assert mine.grad is None, name
        else:
            assert mine.grad is not None, name
            scale = float(reference.grad.abs().max()) + 1e-3
            torch.testing.assert_close(mine.grad, reference.grad, rtol=1e-3, atol=2e-4 * scale)
    assert quantizer._marks.keys() == plain._marks.keys()
    for name in plain._marks:
        for mine, reference in zip(quantizer._limits[name], plain._limits[name], strict=True):
            torch.testing.assert_close(mine, reference)


@settings(max_examples=12, deadline=None, phases=(Phase.generate,))
@given(
    bits=st.integers(2, 8),
    seed=st.integers(0, 1000),
    positive=st.booleans(),
    samples=st.integers(1, 3),
    last=st.booleans(),
    half=st.booleans(),
)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(name: str, bits: int, seed: int, positive: bool, samples: int, last: bool, half: bool) -> None:
    x = signed_values(seed, (samples, 6, 5, 7))
    x = x.relu() if positive else x
    quantizer = fitted(ACTIVATIONS[name](bits), 0.7 * x).to(DEVICE)
    if last:
        x = x.contiguous(memory_format=torch.channels_last)
    set_content(
        Content(torch.zeros(samples), torch.zeros(samples, 2), torch.tensor([1.0, -1.0, 0.0]).to(DEVICE)[:samples])
    )
    compared(quantizer.train(), (x.bfloat16() if half else x).to(DEVICE))


@settings(max_examples=12, deadline=None, phases=(Phase.generate,))
@given(
    bits=st.integers(2, 8), seed=st.integers(0, 1000), inputs=st.integers(1, 5), reach=st.sampled_from([0, 127, 255])
)
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("name", WEIGHTS)
def test_weights(name: str, last: bool, bits: int, seed: int, inputs: int, reach: int) -> None:
    w = signed_values(seed, (5, inputs, 3, 2))
    quantizer = WEIGHTS[name](w, bits)
    quantizer.reach.fill_(reach)
    compared(quantizer.to(DEVICE).train(), (w.contiguous(memory_format=torch.channels_last) if last else w).to(DEVICE))


@settings(max_examples=20, deadline=None, phases=(Phase.generate,))
@given(rows=st.booleans(), offset=st.booleans(), seed=st.integers(0, 1000))
def test_given_values(rows: bool, offset: bool, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = signed_values(seed).to(DEVICE).requires_grad_()
    shape = (4, 1, 1, 1) if rows else ()
    scale = (torch.rand(shape, generator=generator) + 0.1).to(DEVICE).requires_grad_()
    shift = torch.randn((), generator=generator).to(DEVICE).requires_grad_() if offset else None
    low, high = (torch.full(shape, v, device=DEVICE, requires_grad=True) for v in (-3.0, 4.0))
    leaves = [leaf for leaf in (x, scale, shift, low, high) if leaf is not None]
    upstream = torch.randn(x.shape, generator=generator).to(DEVICE)
    fused = quantizing.given(x, scale, shift, low, high)
    assert fused is not None
    expected = fake_quantize(x.cpu(), *(None if v is None else v.cpu() for v in (scale, shift, low, high)))
    torch.testing.assert_close(fused.cpu(), expected)
    for got, wanted in zip(
        torch.autograd.grad(fused, leaves, upstream), torch.autograd.grad(expected, leaves, upstream.cpu()), strict=True
    ):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)


@settings(max_examples=12, deadline=None, phases=(Phase.generate,))
@given(seed=st.integers(0, 1000), samples=st.integers(1, 4), positive=st.booleans())
def test_mixture(seed: int, samples: int, positive: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = signed_values(seed, (samples, 3, 6, 5))
    x = (x.relu() if positive else x).to(DEVICE)
    selector = fitted(BitSelector(3, (4, 6, 8), integer=True), 0.6 * x.cpu()).to(DEVICE)
    assert isinstance(selector, BitSelector)
    choice = torch.randint(3, (samples,), generator=generator).to(DEVICE)
    shares = torch.rand(samples, 3, generator=generator).softmax(1).to(DEVICE)
    upstream = torch.randn(x.shape, generator=generator).to(DEVICE)
    results = []
    for fused in (False, True):
        p, given = shares.clone().requires_grad_(), x.clone().requires_grad_()
        if fused:
            y = quantizing.mixture(selector, given, p, selector.alpha, selector.bits, selector.signed, choice)
            assert y is not None
        else:
            levels = SymmetricActivation.qparams(selector, given)
            y = hard_forward_soft_backward(given, p, levels.scale, levels.low, levels.high, choice)
        results.append((y, *torch.autograd.grad(y, (given, p, selector.alpha), upstream)))
    for got, wanted in zip(results[1], results[0], strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)


def test_a_move_is_bounded_and_written_back() -> None:
    quantizer = fitted(RangeActivation(StaticBitWidth(4), integer=True), signed_values(0)).to(DEVICE).train()
    x = signed_values(1).to(DEVICE)
    before, size = quantizer.upper.detach().clone(), (quantizer.upper - quantizer.lower).detach()
    y, _ = quantizer.fused(x, quantizing)
    y.sum().backward()
    with torch.no_grad():
        quantizer.upper.add_(100.0)
    quantizer.fused(x, quantizing)
    torch.testing.assert_close(quantizer.upper.detach(), before + 0.05 * size)
    with torch.no_grad():
        quantizer.upper.fill_(9.0)  # the move is over: this is somebody's wish
    quantizer.fused(x, quantizing)
    assert quantizer.upper.item() == 9.0


def test_not_a_number_stays_one() -> None:
    quantizer = fitted(LearnedStepActivation(4, integer=True), signed_values(0)).to(DEVICE)
    x = signed_values(1).to(DEVICE)
    x[0, 0, 0, 0] = torch.nan
    y, _ = quantizer.fused(x, quantizing)
    assert y.isnan().sum() == 1


def test_quantized_once_more_in_backward() -> None:
    quantizer = fitted(RangeActivation(mapped(4, 0.6), integer=True), signed_values(0)).to(DEVICE).train()
    gradients = []
    for again in (False, True):
        x = signed_values(1).to(DEVICE).requires_grad_()
        with (
            torch.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t)
            if not again
            else quantize_again_in_backward()
        ):
            y, bits = quantizer.fused(x, quantizing)
            loss = (y * y).sum() + (bits * bits).sum()
        gradients.append(torch.autograd.grad(loss, (x, quantizer.upper, quantizer.bit_width.measure)))
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_a_second_derivative_is_refused() -> None:
    quantizer = fitted(SymmetricActivation((4,), integer=True), signed_values(0)).to(DEVICE)
    x = signed_values(1).to(DEVICE).requires_grad_()
    y, _ = quantizer.fused(x, quantizing)
    (first,) = torch.autograd.grad((y * y).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()

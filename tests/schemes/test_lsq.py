from __future__ import annotations

from pathlib import Path

import pytest
import torch
from golden import golden_files, load
from hypothesis import given, settings
from hypothesis import strategies as st
from plain import relative_error
from torch.nn import functional as F

from qsci_plugins.schemes.lsq import LearnedStepActivation, LearnedStepWeight
from qsci_plugins.schemes.quantizer import Mode
from qsci_plugins.schemes.registry import describe, rebuild


@pytest.mark.parametrize("file", golden_files("qsci_act_*"))
def test_golden_lsq_activation(file: Path) -> None:
    arrays = load(file)
    x = torch.tensor(arrays["x"], requires_grad=True)
    quantizer = LearnedStepActivation(int(arrays["bits"]), channels=x.shape[1], axis=1)
    quantizer.train()(torch.tensor(arrays["first_batch"]))
    assert relative_error(quantizer.step, arrays["alpha_after_first_batch"]) < 1e-5
    assert relative_error(quantizer.zero_point, arrays["zero_point_after_first_batch"]) < 1e-5
    assert float(quantizer.signed) == float(arrays["signed"][0])
    with torch.no_grad():
        quantizer.step.copy_(torch.tensor(arrays["alpha"]))
        quantizer.zero_point.copy_(torch.tensor(arrays["zero_point"]))
    y = quantizer(x)
    (y * torch.tensor(arrays["upstream"])).sum().backward()
    assert relative_error(y, arrays["output"]) < 1e-5
    assert relative_error(x.grad, arrays["grad_x"]) < 1e-5
    assert relative_error(quantizer.step.grad, arrays["grad_alpha"]) < 3e-5
    # where nothing is clipped the published code leaves rounding noise instead of 0
    noise = 1e-6 * float(quantizer.step.grad.abs().max())
    torch.testing.assert_close(
        quantizer.zero_point.grad, torch.tensor(arrays["grad_zero_point"]), rtol=3e-5, atol=noise
    )


@pytest.mark.parametrize("file", golden_files("qsci_conv3d_*"))
def test_golden_lsq_convolution(file: Path) -> None:
    arrays = load(file)
    x = torch.tensor(arrays["x"], requires_grad=True)
    weight = torch.tensor(arrays["weight"], requires_grad=True)
    bits = int(arrays["bits"])
    activation = LearnedStepActivation(bits, channels=x.shape[1], axis=1)
    activation.train()(torch.tensor(arrays["first_batch"]))
    assert relative_error(activation.step, arrays["act_alpha"]) < 1e-5
    assert relative_error(activation.zero_point, arrays["act_zero_point"]) < 1e-5
    assert float(activation.signed) == float(arrays["act_signed"][0])
    quantizer = LearnedStepWeight(weight.shape[0], weight.dim(), bits).start(weight)
    assert relative_error(quantizer.step.flatten(), arrays["weight_alpha"]) < 1e-5
    kernel = weight.shape[2:]
    y = F.conv3d(
        activation(x), quantizer(weight), torch.tensor(arrays["bias"]), padding=tuple(side // 2 for side in kernel)
    )
    (y * torch.tensor(arrays["upstream"])).sum().backward()
    assert relative_error(y, arrays["output"]) < 1e-5
    assert relative_error(x.grad, arrays["grad_x"]) < 1e-5
    assert relative_error(weight.grad, arrays["grad_weight"]) < 1e-5
    assert relative_error(quantizer.step.grad.flatten(), arrays["grad_weight_alpha"]) < 3e-5
    assert relative_error(activation.step.grad, arrays["grad_act_alpha"]) < 3e-5


def test_clipped_values_move_step_and_zero_point() -> None:
    quantizer = LearnedStepActivation(4)
    with torch.no_grad():
        quantizer.step.fill_(0.5)
        quantizer.zero_point.fill_(2.0)
        quantizer.signed.fill_(1.0)
        quantizer.calibrated.fill_(True)
    x = torch.tensor([100.0, -100.0, 0.3], requires_grad=True)
    quantizer(x).sum().backward()
    # 7 - 2 above, -8 - 2 below, round(0.6) - 0.6 inside; each clipped value takes the zero point along
    scale = 1 / (3 * 7) ** 0.5
    assert quantizer.step.grad.item() == pytest.approx((5 - 10 + 0.4) * scale, rel=1e-5)
    assert quantizer.zero_point.grad.item() == pytest.approx(-2 * 0.5 * scale, rel=1e-5)
    assert x.grad.tolist() == [0.0, 0.0, 1.0]


@settings(max_examples=30, deadline=None)
@given(
    bits=st.integers(2, 8),
    seed=st.integers(0, 1000),
    centre=st.floats(-3, 3),
    spread=st.floats(0.01, 10),
)
def test_the_integer_form_fits_int8_and_keeps_zero(bits: int, seed: int, centre: float, spread: float) -> None:
    x = (torch.randn(2, 3, 40, generator=torch.Generator().manual_seed(seed)) + centre) * spread
    quantizer = LearnedStepActivation(bits, integer=True)
    quantizer.update(quantizer.reduce(x))
    quantizer.initialise()
    with torch.no_grad():
        p = quantizer.qparams(x)
    assert p.offset is None
    assert float(p.low) <= 0 <= float(p.high)
    assert float(p.low) == round(float(p.low))
    assert float(p.high - p.low) == 2**bits - 1
    assert float(p.low) >= -255
    assert float(p.high) <= 255
    if bits == 8:
        assert (float(p.low), float(p.high)) in {(-128.0, 127.0), (0.0, 255.0)}
    assert quantizer(torch.zeros(1)).item() == 0.0
    y = quantizer(x)
    assert torch.equal(quantizer.integers(y), quantizer.integers(x))
    whole = float(x.max().clamp_min(0) - x.min().clamp_max(0))
    assert (y - x).square().mean().sqrt() <= whole / (2**bits - 1)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), samples=st.integers(1, 5), channels=st.integers(1, 4))
def test_a_batch_is_bit_for_bit_its_samples(seed: int, samples: int, channels: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(samples, channels, 4, 5, generator=generator)
    quantizer = LearnedStepActivation(4, channels=channels)
    quantizer.train()(x)
    quantizer.eval()
    together = quantizer(x)
    for i in range(samples):
        assert torch.equal(quantizer(x[i : i + 1])[0], together[i])


def test_channels_lie_along_their_axis() -> None:
    x = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    quantizer = LearnedStepActivation(8, channels=3, axis=-1)
    with torch.no_grad():
        quantizer.step.copy_(torch.tensor([0.01, 0.1, 1.0]))
        quantizer.signed.fill_(1.0)
    integers = quantizer.integers(x)
    for channel, step in enumerate((0.01, 0.1, 1.0)):
        assert torch.equal(integers[..., channel], (x[..., channel] / step).clamp(-128, 127).round())


def test_only_the_first_batch_in_training_sets_the_step() -> None:
    quantizer = LearnedStepActivation(4)
    x = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    quantizer.eval()(x)
    assert not quantizer.calibrated
    quantizer.train()(x)
    step = quantizer.step.item()
    assert step == pytest.approx(2 * x.abs().mean().item() / 7**0.5, rel=1e-6)
    quantizer(x * 100)
    assert quantizer.step.item() == step


def test_refine_takes_what_reaches_the_layer_for_the_first_batch() -> None:
    published, integer = LearnedStepActivation(4), LearnedStepActivation(4, integer=True)
    x = torch.randn(2, 3, 40, generator=torch.Generator().manual_seed(0))
    for quantizer in (published, integer):
        quantizer.update(quantizer.reduce(x))
        quantizer.initialise()
        before = quantizer.step.item()
        quantizer.mode = Mode.REFINE
        quantizer(2 * x)
        expected = 2 * before if quantizer is published else before
        assert quantizer.step.item() == pytest.approx(expected, rel=1e-5)


def test_searched_weight_steps_have_less_error_than_published_ones() -> None:
    weight = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    errors = [
        (LearnedStepWeight(4, 4, 4).start(weight, search=search)(weight) - weight).square().mean()
        for search in (True, False)
    ]
    assert errors[0] < errors[1]


@pytest.mark.parametrize("quantizer", [LearnedStepActivation(5, channels=3, integer=True), LearnedStepWeight(4, 3, 6)])
def test_rebuilt_from_json(quantizer: torch.nn.Module) -> None:
    with torch.no_grad():
        for parameter in quantizer.parameters():
            parameter.uniform_(0.1, 1.0, generator=torch.Generator().manual_seed(0))
    again = rebuild(describe(quantizer))
    again.load_state_dict(quantizer.state_dict())
    x = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(1))
    assert torch.equal(again.eval()(x), quantizer.eval()(x))

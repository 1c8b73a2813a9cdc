from __future__ import annotations

from pathlib import Path

import pytest
import torch
from golden import golden_files, load
from hypothesis import given, settings
from hypothesis import strategies as st
from plain import relative_error

from qsci_plugins.schemes.pams import MaxWeight, SymmetricActivation
from qsci_plugins.schemes.registry import describe, rebuild


@pytest.mark.parametrize("file", golden_files("cadyq_pams_*"))
def test_golden_pams_output_and_gradients(file: Path) -> None:
    arrays = load(file)
    quantizer = SymmetricActivation((int(arrays["bits"]),))
    with torch.no_grad():
        quantizer.alpha.fill_(float(arrays["alpha"]))
    x = torch.tensor(arrays["x"], requires_grad=True)
    y = quantizer(x)
    (y * torch.tensor(arrays["upstream"])).sum().backward()
    assert relative_error(y, arrays["output"]) < 1e-5
    assert relative_error(x.grad, arrays["grad_x"]) < 1e-5
    assert relative_error(quantizer.alpha.grad, arrays["grad_alpha"]) < 3e-5


@pytest.mark.parametrize("file", golden_files("cadyq_pams_*"))
def test_golden_pams_weights(file: Path) -> None:
    arrays = load(file)
    quantizer = MaxWeight(int(arrays["weight_bits"]))
    assert relative_error(quantizer(torch.tensor(arrays["weight"])), arrays["weight_quantized"]) < 1e-5


@pytest.mark.parametrize("file", golden_files("cadyq_pams_*"))
def test_golden_pams_alpha_of_the_calibration_epoch(file: Path) -> None:
    arrays = load(file)
    quantizer = SymmetricActivation((int(arrays["bits"]),))
    for number, alpha in enumerate(arrays["calib_alpha_after_each"]):
        for batch in range(number + 1):
            quantizer.update(quantizer.reduce(torch.tensor(arrays[f"calib_{batch}"])))
        quantizer.initialise()
        assert quantizer.alpha.item() == pytest.approx(float(alpha), rel=1e-6)


@settings(max_examples=25, deadline=None)
@given(bits=st.integers(2, 8), alpha=st.floats(0.01, 300), seed=st.integers(0, 99), signed=st.booleans())
def test_values_lie_on_the_grid_inside_the_range(bits: int, alpha: float, seed: int, signed: bool) -> None:
    quantizer = SymmetricActivation((bits,))
    with torch.no_grad():
        quantizer.alpha.fill_(alpha)
        quantizer.signed.fill_(float(signed))
    x = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(seed)) * alpha
    z = quantizer.integers(x)
    top = 2 ** (bits - 1) - 1 if signed else 2**bits - 1
    assert torch.equal(z, z.round())
    assert z.max() <= top
    assert z.min() >= (-top if signed else 0)
    y = quantizer(x)
    step = alpha / top
    inside = (x >= (-alpha if signed else 0)) & (x <= alpha)
    assert ((y - x).abs()[inside] <= step * 0.5001).all()
    assert torch.allclose(quantizer(y), y, rtol=1e-6, atol=0)


def test_the_integer_form_spends_no_levels_on_what_never_occurs() -> None:
    x = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    integer, published = SymmetricActivation((4,), integer=True), SymmetricActivation((4,))
    for quantizer in (integer, published):
        quantizer.update(quantizer.reduce(x))
        quantizer.initialise()
    assert integer.integers(x).unique().numel() == 16
    assert published.integers(x).unique().numel() == 8
    assert (integer(x) - x).square().mean() < 0.5 * (published(x) - x).square().mean()


def test_the_least_error_beats_the_maximum_where_there_is_an_outlier() -> None:
    x = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    x[0, 0, 0, 0] = 12.0
    quantizer = SymmetricActivation((4, 8), integer=True)
    quantizer.update(quantizer.reduce(x))
    quantizer.initialise()
    few, many = quantizer.alpha.tolist()
    assert few < many <= 12.0


def test_weights_per_channel_use_each_channels_maximum() -> None:
    weight = (
        torch.randn(3, 2, 3, 3, generator=torch.Generator().manual_seed(0))
        * torch.tensor([1.0, 10, 100])[:, None, None, None]
    )
    quantizer = MaxWeight(8, per_channel=True)
    assert torch.equal(quantizer.integers(weight).flatten(1).abs().amax(1), torch.full((3,), 127.0))
    assert MaxWeight(8).integers(weight)[0].abs().max() < 10


@pytest.mark.parametrize("quantizer", [SymmetricActivation((4, 8), integer=True), MaxWeight(6, per_channel=True)])
def test_rebuilt_from_json(quantizer: torch.nn.Module) -> None:
    again = rebuild(describe(quantizer))
    again.load_state_dict(quantizer.state_dict())
    x = torch.randn(2, 3, 4, 4) if isinstance(quantizer, MaxWeight) else torch.randn(2, 2)
    assert torch.equal(again(x), quantizer(x))

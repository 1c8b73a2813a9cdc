"""No optimizer moves a learned step through zero, or by more than a share of its size."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from qsci_plugins.schemes.activation import RangeActivation
from qsci_plugins.schemes.bit_width import StaticBitWidth
from qsci_plugins.schemes.lsq import LearnedStepActivation, LearnedStepWeight
from qsci_plugins.schemes.pams import SymmetricActivation
from qsci_plugins.schemes.quantizer import Mode, Quantizer
from qsci_plugins.schemes.weight import ChannelWeight


def small_values() -> Tensor:
    return 1e-3 * torch.rand(4, 8, 6, 6, generator=torch.Generator().manual_seed(0))


def fitted(quantizer: Quantizer) -> Quantizer:
    quantizer.mode = Mode.OBSERVE
    quantizer(small_values())
    quantizer.mode = Mode.ON
    quantizer.initialise()
    return quantizer


QUANTIZERS = {
    "lsq": lambda: fitted(LearnedStepActivation(4, integer=True)),
    "lsq weight": lambda: LearnedStepWeight(4, 4, 4).start(small_values(), search=True),
    "adabm": lambda: fitted(RangeActivation(StaticBitWidth(4), integer=True)),
    "adabm weight": lambda: ChannelWeight(small_values(), 4),
    "pams": lambda: fitted(SymmetricActivation((4,), integer=True)),
}


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.SGD])
@pytest.mark.parametrize("name", QUANTIZERS)
def test_steps_move_by_a_share_of_their_size(name: str, optimizer: type[torch.optim.Optimizer]) -> None:
    quantizer = QUANTIZERS[name]().train()
    first = quantizer.qparams(small_values()).scale.detach().clone()
    training = optimizer(quantizer.parameters(), lr=1e-3 if optimizer is torch.optim.Adam else 1e6)  # type: ignore[call-arg]
    before, moved = first, 0.0
    for _ in range(200):
        # pushes the steps down as far as they go
        quantizer(small_values()).sum().backward()
        training.step()
        training.zero_grad()
        scale = quantizer.qparams(small_values()).scale.detach().clone()
        assert (scale > 0).all()
        assert ((scale - before).abs() <= 0.21 * before + 1e-8).all()
        moved = max(moved, float(((scale - first).abs() / first).max()))
        before = scale
    assert moved > 0.01


def test_gradients_and_names_are_those_of_a_plain_parameter() -> None:
    quantizer = QUANTIZERS["adabm weight"]()
    weight = small_values()
    quantizer(weight).square().sum().backward()
    plain = copy.deepcopy(quantizer)
    plain.zero_grad()
    p = plain.full_range(weight)
    z = weight / p.scale
    clipped = torch.minimum(torch.maximum(z, p.low), p.high)
    (((clipped.round() - clipped).detach() + clipped) * p.scale).square().sum().backward()
    assert torch.allclose(quantizer.step.grad, plain.step.grad, rtol=1e-4)
    assert set(quantizer.state_dict()) == {"step", "calibrated", "reach"}


def test_what_is_saved_right_behind_an_update_is_bounded_too() -> None:
    quantizer = QUANTIZERS["lsq weight"]()
    before = quantizer.step.detach().clone()
    quantizer(small_values()).sum().backward()
    with torch.no_grad():
        quantizer.step.fill_(-1.0)
    assert torch.allclose(quantizer.state_dict()["step"], 0.95 * before)
    quantizer.load_state_dict({**quantizer.state_dict(), "step": torch.full_like(before, 3.0)})
    assert torch.equal(quantizer.full_range(small_values()).scale, torch.full_like(before, 3.0))


def test_an_attention_keeps_learning_under_plain_adam() -> None:
    from brevitas.graph.calibrate import calibration_mode

    from qsci_plugins.brevitas import ShiftedScaledDotProductAttention

    torch.manual_seed(0)
    attention = ShiftedScaledDotProductAttention(heads=2, bits=4).eval()
    project = nn.Linear(8, 24)
    x, target = torch.randn(4, 64, 8), torch.randn(4, 2, 64, 4)

    def forward() -> Tensor:
        q, k, v = project(x).reshape(4, 64, 3, 2, 4).permute(2, 0, 3, 1, 4)
        result: Tensor = attention(q, k, v)
        return result

    with torch.no_grad(), calibration_mode(attention):
        forward()
    attention.train()
    training = torch.optim.Adam([*project.parameters(), *attention.parameters()], lr=1e-3)
    steps = [module for module in attention.modules() if isinstance(module, LearnedStepActivation)]
    assert len(steps) == 4
    for _ in range(200):
        loss = (forward() - target).square().mean()
        training.zero_grad()
        loss.backward()
        assert project.weight.grad is not None
        for part in project.weight.grad.chunk(3):  # queries, keys, values
            assert part.abs().sum() > 0
        training.step()
        assert all(bool((step.qparams(x).scale > 1e-7).all()) for step in steps)

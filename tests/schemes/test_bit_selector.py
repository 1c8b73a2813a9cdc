from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from golden import golden_files, load
from hypothesis import given, settings
from hypothesis import strategies as st
from plain import relative_error
from torch import Tensor

from qsci_plugins.errors import UserError
from qsci_plugins.schemes.bit_selector import BitSelector
from qsci_plugins.schemes.bit_width import record_bits
from qsci_plugins.schemes.content import Content, set_content
from qsci_plugins.schemes.pams import SymmetricActivation
from qsci_plugins.schemes.registry import describe, rebuild


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    torch.manual_seed(0)
    set_content(None)
    yield
    set_content(None)


def tell(gradient_xy: Tensor) -> None:
    set_content(Content(gradient_xy.mean(1), gradient_xy))


@pytest.mark.parametrize("file", golden_files("cadyq_bit_selector_*"))
def test_golden_bit_selector(file: Path) -> None:
    arrays = load(file)
    x = torch.tensor(arrays["x"], requires_grad=True)
    selector = BitSelector(x.shape[1], tuple(arrays["search_space"].tolist()))
    with torch.no_grad():
        selector.alpha.copy_(torch.tensor(arrays["alphas"]))
        selector.weight.copy_(torch.tensor(arrays["linear_weight"]))
        selector.bias.copy_(torch.tensor(arrays["linear_bias"]))
    tell(torch.tensor(arrays["image_gradient_xy"]))
    with record_bits() as ledger:
        y = selector(x)
    bits, weighted = ledger.total([selector]), ledger.weighted_total([selector])
    loss = (y * torch.tensor(arrays["upstream"])).sum()
    loss = loss + float(arrays["bits_upstream"]) * bits.sum()
    loss = loss + float(arrays["weighted_bits_upstream"]) * weighted.sum()
    loss.backward()
    assert relative_error(y, arrays["output"]) < 1e-5
    assert torch.equal(bits.round(), torch.tensor(arrays["bits"]))
    assert relative_error(weighted, arrays["weighted_bits"]) < 1e-5
    assert relative_error(x.grad, arrays["grad_x"]) < 1e-5
    assert relative_error(selector.alpha.grad, arrays["grad_alphas"]) < 3e-5
    assert relative_error(selector.weight.grad, arrays["grad_linear_weight"]) < 3e-5
    assert relative_error(selector.bias.grad, arrays["grad_linear_bias"]) < 3e-5


def selector_of(seed: int, channels: int, candidates: tuple[int, ...]) -> BitSelector:
    generator = torch.Generator().manual_seed(seed)
    selector = BitSelector(channels, candidates)
    with torch.no_grad():
        selector.weight.copy_(torch.randn(selector.weight.shape, generator=generator))
        selector.bias.copy_(torch.randn(selector.bias.shape, generator=generator))
        selector.alpha.copy_(torch.rand(selector.alpha.shape, generator=generator) + 1)
    return selector


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    samples=st.integers(1, 6),
    channels=st.integers(1, 6),
    candidates=st.sets(st.integers(2, 8), min_size=1, max_size=5),
    grad=st.booleans(),
)
def test_a_batch_is_bit_for_bit_its_samples(
    seed: int, samples: int, channels: int, candidates: set[int], grad: bool
) -> None:
    selector = selector_of(seed, channels, tuple(sorted(candidates)))
    generator = torch.Generator().manual_seed(seed)
    # deviations far apart, so that the bits of a batch differ
    x = torch.randn(samples, channels, 7, 5, generator=generator) * torch.logspace(-2, 2, samples)[:, None, None, None]
    gradients = torch.rand(samples, 2, generator=generator) * 30
    with torch.set_grad_enabled(grad):
        tell(gradients)
        with record_bits() as ledger:
            together = selector(x)
        bits = ledger.total([selector]).detach().reshape(-1)
        for i in range(samples):
            tell(gradients[i : i + 1])
            with record_bits() as ledger:
                alone = selector(x[i : i + 1])
            assert torch.equal(alone[0], together[i])
            assert ledger.total([selector]).detach() == bits[i]
            assert int(bits[i].round()) in candidates


def test_training_and_evaluation_give_the_same_numbers() -> None:
    selector = selector_of(3, 4, (4, 6, 8))
    x = torch.randn(5, 4, 9, 9) * torch.logspace(-1, 1, 5)[:, None, None, None]
    tell(torch.rand(5, 2) * 20)
    with torch.no_grad():
        evaluated = selector(x)
    trained = selector(x.requires_grad_())
    assert trained.requires_grad
    assert torch.equal(trained, evaluated)
    p = selector.qparams(x)
    assert p.bit_width.shape == (5, 1, 1, 1)
    assert torch.equal(p.high, torch.pow(2.0, p.bit_width - 1) - 1)


def test_the_backward_pass_is_that_of_the_softmax_mixture() -> None:
    selector = selector_of(5, 3, (3, 5, 8)).double()
    x = torch.randn(4, 3, 6, 6, dtype=torch.float64)
    x.requires_grad_()
    tell(torch.rand(4, 2, dtype=torch.float64) * 10)
    upstream = torch.randn(4, 3, 6, 6, dtype=torch.float64)
    (selector(x) * upstream).sum().backward()
    fused = [x.grad, selector.alpha.grad, selector.weight.grad, selector.bias.grad]
    x.grad = selector.alpha.grad = selector.weight.grad = selector.bias.grad = None

    mixture = torch.zeros_like(x)
    for probability, alpha, bits in zip(selector.scores(x).softmax(1).T, selector.alpha, (3, 5, 8), strict=True):
        top = 2 ** (bits - 1) - 1
        scaled = torch.maximum(torch.minimum(x, alpha), -alpha) / alpha * top
        rounded = scaled + (scaled.round() - scaled).detach()
        mixture = mixture + probability[:, None, None, None] * rounded / top * alpha
    (mixture * upstream).sum().backward()
    for name, got, expected in zip(
        ("x", "alpha", "weight", "bias"),
        fused,
        [x.grad, selector.alpha.grad, selector.weight.grad, selector.bias.grad],
        strict=True,
    ):
        torch.testing.assert_close(got, expected, msg=name)


def test_windows_of_one_image_share_its_bits() -> None:
    selector = selector_of(1, 4, (4, 6, 8))
    selector.channel_axis = -1
    images = torch.randn(2, 3, 10, 4) * torch.tensor([0.01, 100.0])[:, None, None, None]
    tell(torch.tensor([[1.0, 2.0], [30.0, 20.0]]))
    bits = selector.qparams(images.reshape(6, 10, 4)).bit_width.flatten()
    assert torch.equal(bits[:3], bits[:1].expand(3))
    assert torch.equal(bits[3:], bits[3:4].expand(3))
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            assert selector(images.reshape(6, 10, 4)).shape == (6, 10, 4)


def test_the_widest_candidate_is_chosen_at_first() -> None:
    selector = BitSelector(3, (2, 5, 7))
    tell(torch.rand(4, 2))
    assert torch.equal(selector.qparams(torch.randn(4, 3, 5, 5)).bit_width.flatten(), torch.full((4,), 7.0))


def test_no_network_input_measured() -> None:
    with pytest.raises(UserError, match="attach_scheme"):
        BitSelector(3)(torch.randn(1, 3, 4, 4))


def test_copied_and_rebuilt_selectors_are_equal() -> None:
    selector = selector_of(2, 4, (4, 6, 8))
    x = torch.randn(3, 4, 5, 5)
    tell(torch.rand(3, 2))
    y = selector(x)
    assert torch.equal(copy.deepcopy(selector)(x), y)
    again = rebuild(describe(selector))
    again.load_state_dict(selector.state_dict())
    assert torch.equal(again(x), y)


def test_widest_only_is_pams_with_the_widest_candidates_maximum() -> None:
    selector = BitSelector(3, (4, 6, 8))
    pams = SymmetricActivation((8,))
    with torch.no_grad():
        selector.alpha.copy_(torch.tensor([0.5, 1.0, 2.0]))
        pams.alpha.fill_(2.0)
    selector.widest_only = True
    x = torch.randn(2, 3, 5, 5)
    # no content is needed, as nothing is chosen
    with record_bits() as ledger:
        y = selector(x)
    assert torch.equal(y, pams(x))
    assert ledger.total([selector]).item() == 8
    y.sum().backward()
    assert selector.weight.grad is None
    assert selector.alpha.grad is not None
    assert selector.alpha.grad[:2].abs().max() == 0


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 6), st.sampled_from([(4, 6, 8), (3, 8), (2, 4, 6, 8)]))
def test_spread_chooses_every_candidate_equally_often_and_wide_ones_for_the_sensitive(
    seed: int, channels: int, candidates: tuple[int, ...]
) -> None:
    generator = torch.Generator().manual_seed(seed)
    contrast = torch.rand(240, 1, generator=generator) * 50
    sensitivity = contrast * (0.5 + torch.rand(1, channels + 2, generator=generator))
    selector = BitSelector(channels, candidates)
    selector.spread(sensitivity)
    choice = (sensitivity @ selector.weight.T + selector.bias).argmax(1)
    share = 240 / len(candidates)
    assert all(abs(int((choice == k).sum()) - share) <= 2 for k in range(len(candidates)))
    order = contrast[:, 0].argsort()
    assert (choice[order].diff() >= 0).all()


def test_a_channel_that_never_changes_says_nothing() -> None:
    selector = BitSelector(2, (4, 8))
    sensitivity = torch.rand(50, 4)
    sensitivity[:, 2] = 3.0
    selector.spread(sensitivity)
    assert torch.isfinite(selector.weight).all()
    assert (selector.weight[:, 2] == 0).all()

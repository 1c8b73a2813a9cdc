from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from qsci_plugins.architectures.sr.edsr import EDSR
from qsci_plugins.data.patches import PatchPairs
from qsci_plugins.errors import UserError
from qsci_plugins.nncf.backend import apply, quantize
from qsci_plugins.schemes.bit_selector import BitSelector
from qsci_plugins.schemes.bit_width import record_bits
from qsci_plugins.schemes.placement import Placement
from qsci_plugins.schemes.registry import make_scheme
from qsci_plugins.schemes.scheme import QuantizedNetwork
from qsci_plugins.training.attention_transfer import FeatureMaps, FeatureSites, attention_distance
from qsci_plugins.training.cadyq import selector_groups, train_cadyq
from qsci_plugins.training.selectors import spread_selectors
from qsci_plugins.training.settings import CADyQTraining, Folder

SITES = FeatureSites({"body.0": True, "body.1": True}, "tail")
_DATA: Any = {"schedule": "cadyq", "data": [Folder(path="photos")]}
PUBLISHED = CADyQTraining(**_DATA, steps=4, warm_up=3, batch=2, checkpoint_every=2, precision="float32", cpu=True)
SPREAD = PUBLISHED.model_copy(
    update={"selector_start": "spread", "relative": True, "warm_up": 0, "ema": 0.5, "output_weight": 1.0}
)


@pytest.fixture(scope="module")
def pairs() -> PatchPairs:
    """A photo of flat, soft and noisy squares, so that patches differ."""
    generator = np.random.default_rng(0)
    strength = np.kron(generator.uniform(0, 1, (6, 6, 1)) ** 3, np.ones((16, 16, 1)))
    image = 128 + 120 * strength * generator.uniform(-1, 1, (96, 96, 3))
    return PatchPairs([image.astype(np.uint8)], scale=2, patch=12)


def _float() -> EDSR:
    torch.manual_seed(0)
    return EDSR(blocks=2, width=8, scale=2).eval()


def _network(pairs: PatchPairs, form: str = "integer", scheme: str = "cadyq") -> QuantizedNetwork:
    settings = {"form": form} if scheme == "cadyq" else {}
    batch = pairs.draw(9, 0, 8)[0]
    return quantize(_float(), make_scheme({"name": scheme, **settings}), Placement(("body.?.body.*",)), [batch], 255.0)


def _selectors(network: QuantizedNetwork) -> list[BitSelector]:
    return [module for module in network.model.modules() if isinstance(module, BitSelector)]


def test_the_first_loss_is_the_published_sum(pairs: PatchPairs) -> None:
    settings = PUBLISHED.model_copy(update={"warm_up": 0, "steps": 1, "bit_weight": 0.5, "bit_growth": 0.25})
    network, teacher = _network(pairs, "faithful"), _network(pairs, "faithful")
    for selector in _selectors(network):
        with torch.no_grad():  # 4 bits for the student, 8 for the teacher that it starts as
            selector.bias.copy_(torch.tensor([3.0, 0.0, 0.0]))
    for selector in _selectors(teacher):
        selector.widest_only = True
    low, high = pairs.draw(0, 0, 2)
    outputs, maps = [], []
    for module in (network, teacher):
        features = FeatureMaps(module.model, SITES)
        with record_bits() as ledger, torch.no_grad():
            outputs.append(module.model(low))
        maps.append(features.take())
        features.close()
        if module is network:
            assert ledger.total(module.counted()).tolist() == [4 * len(_selectors(module))] * 2
    expected = F.l1_loss(outputs[0], high)
    ratios = _bit_ratio(network, low)
    expected = expected + (0.5 + 0.25) * ratios
    assert maps[0][0] is not None
    assert maps[1][0] is not None
    expected = expected + 1e3 * attention_distance(maps[0][0], maps[1][0])
    expected = expected + 1e2 * sum(attention_distance(a, b) for a, b in zip(maps[0][1], maps[1][1], strict=True))
    seen: list[float] = []
    train_cadyq(network, pairs, settings, SITES, on_step=lambda step, scalars: seen.append(scalars["loss"]))
    assert seen == [pytest.approx(expected.item(), rel=1e-5)]


def _bit_ratio(network: QuantizedNetwork, low: torch.Tensor) -> torch.Tensor:
    """sum over selectors of bits / expected bits, the mean over samples, from the selectors' own scores."""
    ratios: list[torch.Tensor] = []

    def look(selector: Any, args: tuple[torch.Tensor, ...]) -> None:
        scores = selector.scores(args[0])
        ratios.append(selector.bits[scores.argmax(1)] / (scores.softmax(1) * selector.bits).sum(1))

    handles = [selector.register_forward_pre_hook(look) for selector in _selectors(network)]
    with torch.no_grad():
        network.model(low)
    for handle in handles:
        handle.remove()
    return torch.stack(ratios).sum(0).mean()


def test_w_bit_grows_with_the_epochs() -> None:
    settings = CADyQTraining(**_DATA, steps=1)
    assert settings.bit_weight_at(0) == pytest.approx(1e-4 + 1e-6)
    assert settings.bit_weight_at(999) == pytest.approx(1e-4 + 1e-6)
    assert settings.bit_weight_at(299_999) == pytest.approx(1e-4 + 300e-6)


def test_gradients_reach_selectors_and_the_bit_loss_alone_lowers_the_bits(pairs: PatchPairs) -> None:
    network = _network(pairs)
    before = [selector.weight.detach().clone() for selector in _selectors(network)]
    fabs: list[float] = []
    settings = PUBLISHED.model_copy(
        update={
            "warm_up": 0,
            "steps": 40,
            "selector_rate": 1e-2,
            "label_weight": 0.0,
            "bit_weight": 1.0,
            "feature_weight": 0.0,
            "block_weight": 0.0,
        }
    )
    train_cadyq(network, pairs, settings, SITES, on_step=lambda step, scalars: fabs.append(scalars["fab"]))
    assert fabs[0] == 8
    assert fabs[-1] == 4
    for selector, weight in zip(_selectors(network), before, strict=True):
        assert not torch.equal(selector.weight, weight)


def test_groups_have_the_published_rates(pairs: PatchPairs) -> None:
    network = _network(pairs, "faithful")
    groups = selector_groups(network, PUBLISHED, selectors=True)
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    assert {rates[id(p)] for s in _selectors(network) for p in (s.weight, s.bias)} == {1e-4}
    assert {rates[id(s.alpha)] for s in _selectors(network)} == {1e-2}
    assert rates[id(network.model.get_submodule("head.0").weight)] == 1e-4
    assert len(rates) == len([p for p in network.model.parameters() if p.requires_grad])
    warm = {id(p) for group in selector_groups(network, PUBLISHED, selectors=False) for p in group["params"]}
    assert rates.keys() - warm == {id(p) for s in _selectors(network) for p in (s.weight, s.bias)}


def test_the_warm_up_runs_at_eight_bits_and_leaves_the_selectors(pairs: PatchPairs) -> None:
    network = _network(pairs, "faithful")
    start = [selector.weight.detach().clone() for selector in _selectors(network)]
    seen: list[tuple[float, bool]] = []

    def look(step: int, scalars: dict[str, float]) -> None:
        moved = any(not torch.equal(s.weight, w) for s, w in zip(_selectors(network), start, strict=True))
        seen.append((scalars["fab"], moved))

    result = train_cadyq(network, pairs, PUBLISHED, SITES, on_step=look)
    assert (result.steps, result.finished) == (7, True)
    assert seen[:3] == [(8.0, False)] * 3
    assert seen[3][1]
    assert not any(selector.widest_only for selector in _selectors(network))


def test_spread_selectors_give_more_bits_to_busier_patches(pairs: PatchPairs) -> None:
    network = _network(pairs)
    spread_selectors(network, pairs, 0)
    low, _ = pairs.draw(5, 0, 64)
    fab = network.fab(low)
    assert 5 < fab.mean() < 7
    contrast = low.std((1, 2, 3))
    assert torch.corrcoef(torch.stack([fab, contrast]))[0, 1] > 0.7


@pytest.mark.parametrize(("settings", "stop"), [(PUBLISHED, 2), (PUBLISHED, 5), (SPREAD, 3)])
def test_an_interrupted_run_resumes_to_the_same_weights(
    pairs: PatchPairs, settings: CADyQTraining, stop: int, tmp_path: Path
) -> None:
    whole = _network(pairs)
    train_cadyq(whole, pairs, settings, SITES)

    def interrupt(step: int, scalars: dict[str, float]) -> None:
        if step == stop:
            raise KeyboardInterrupt

    first = train_cadyq(_network(pairs), pairs, settings, SITES, tmp_path, on_step=interrupt)
    assert (first.steps, first.finished) == (stop, False)
    second = _network(pairs)
    assert train_cadyq(second, pairs, settings, SITES, tmp_path).finished
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(second.model.state_dict()[name], tensor), name


def test_a_network_that_cannot_be_trained_so_is_refused(pairs: PatchPairs) -> None:
    with pytest.raises(UserError, match="bit selectors, which this network has none of"):
        train_cadyq(_network(pairs, scheme="adabm"), pairs, PUBLISHED, SITES)
    scheme = make_scheme({"name": "cadyq"})
    fresh = apply(_float(), scheme, Placement(("body.?.body.*",)), pairs.draw(9, 0, 8)[0], 255.0)
    with pytest.raises(UserError, match="calibrate it first"):
        train_cadyq(fresh, pairs, PUBLISHED, SITES)

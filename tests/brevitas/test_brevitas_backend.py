from __future__ import annotations

import copy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from brevitas_networks import CASES, EVERYTHING, images, inputs_for, placement_for, settings_for, stock
from plain import apply_plain, calibrate
from torch import nn

from qsci_plugins.brevitas import apply, load, network, quantize, save
from qsci_plugins.errors import UserError
from qsci_plugins.schemes.placement import Placement
from qsci_plugins.schemes.registry import make_scheme
from qsci_plugins.schemes.scheme import QuantizedNetwork, inputs_of


@cache
def calibrated_case(case: tuple[str, str, str]) -> tuple[QuantizedNetwork, tuple[Any, ...]]:
    """Quantized and calibrated once, for tests that leave it as it is."""
    name, scheme, form = case
    inputs = inputs_for(name)
    method = make_scheme(settings_for(name, scheme, form))
    quantized = quantize(stock(name), method, placement_for(name, scheme), [inputs], 255.0 if name == "edsr" else 1.0)
    return quantized, inputs_of(inputs)


def quantized_case(case: tuple[str, str, str]) -> tuple[QuantizedNetwork, tuple[Any, ...]]:
    """A copy of `calibrated_case` to change."""
    quantized, inputs = calibrated_case(case)
    return network(copy.deepcopy(quantized.model)), inputs


@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_equals_the_scheme_itself(case: tuple[str, str, str]) -> None:
    name, scheme, form = case
    quantized, inputs = calibrated_case(case)
    value_range = 255.0 if name == "edsr" else 1.0
    method = make_scheme(settings_for(name, scheme, form))
    plain = apply_plain(stock(name), method, placement_for(name, scheme), [x[:1] for x in inputs], value_range)
    calibrate(plain, [inputs if len(inputs) > 1 else inputs[0]])
    assert quantized.calibrated()
    with torch.no_grad():
        assert torch.equal(quantized.model(*inputs), plain.model(*inputs))
    assert torch.equal(quantized.fab(inputs), plain.fab(inputs))
    assert set(quantized.layers) == set(plain.layers)
    assert set(quantized.blocks) == set(plain.blocks)
    assert set(quantized.attentions) == set(plain.attentions)


@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_saved_loaded_and_copied_networks_are_the_same(case: tuple[str, str, str], tmp_path: Path) -> None:
    quantized, inputs = quantized_case(case)
    with torch.no_grad():
        assert torch.equal(quantized.model(*inputs), calibrated_case(case)[0].model(*inputs))
    if quantized.attentions:
        shift = next(iter(quantized.attentions.values())).query.shift
        with torch.no_grad():
            shift.add_(0.05)
    save(quantized, tmp_path / "q.pt")
    assert [file.name for file in tmp_path.iterdir()] == ["q.pt"]
    loaded = load(stock(case[0], seed=1), tmp_path / "q.pt")
    copied = copy.deepcopy(quantized.model)
    with torch.no_grad():
        y = quantized.model(*inputs)
        assert torch.equal(loaded.model(*inputs), y)
        assert torch.equal(copied(*inputs), y)
    assert torch.equal(loaded.fab(inputs), quantized.fab(inputs))
    assert torch.equal(network(copied).fab(inputs), quantized.fab(inputs))
    # a copy has its own quantizers
    mine = network(copied).quantizers()
    assert not {id(q) for q in mine} & {id(q) for q in quantized.quantizers()}


@pytest.mark.parametrize("case", [("edsr", "adabm", "integer"), ("edsr", "cadyq", "faithful")], ids="-".join)
def test_a_batch_gives_what_its_samples_give_also_when_as_many_as_channels(case: tuple[str, str, str]) -> None:
    quantized, _ = quantized_case(case)
    if case[1] == "cadyq":
        for selector in quantized.counted():
            with torch.no_grad():
                selector.weight.copy_(torch.tensor([-0.1, 0.0, 0.1])[:, None].expand_as(selector.weight))
                selector.bias.copy_(torch.tensor([6.0, 0.0, -6.0]))
    x = images(6)  # as many as the layers have channels
    bits = quantized.fab(x)
    assert bits.unique().numel() > 1
    layer = quantized.model.get_submodule("body.0.body.2")
    features = torch.randn(6, 6, 9, 9, generator=torch.Generator().manual_seed(0)) * 30
    with torch.no_grad():
        quantized.model(x)  # leaves the content of this batch
        together = layer.input_quant(features)
        for i in range(6):
            quantized.model(x[i : i + 1])
            assert torch.equal(layer.input_quant(features[i : i + 1])[0], together[i])
            assert torch.equal(quantized.fab(x[i : i + 1]), bits[i : i + 1])


def test_training_reaches_weights_quantizers_and_bits() -> None:
    quantized, (x,) = quantized_case(("edsr", "adabm", "integer"))
    quantized.model.train()(x).square().mean().backward()
    layer = quantized.layers["body.0.body.0"]
    assert layer.activation.upper.grad.abs().sum() > 0
    assert layer.activation.bit_width.measure.grad is not None
    assert quantized.model.get_submodule("body.0.body.0").weight.grad.abs().sum() > 0
    assert quantized.input_module.lower.grad is not None


def test_frozen_parameters_stay_frozen_and_the_stock_network_untouched() -> None:
    model = stock("edsr")
    before = copy.deepcopy(model.state_dict())
    quantized = apply(model, make_scheme({"name": "adabm"}), Placement(), images(1), 255.0)
    assert not quantized.model.get_submodule("sub_mean").weight.requires_grad
    assert quantized.model.get_submodule("head.0").weight.requires_grad
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    assert type(model.head[0]) is nn.Conv2d


def test_a_layer_under_two_names_is_quantized_once() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, 3, 3, padding=1)
            self.second = self.first

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.second(self.first(x))

    quantized = apply(Shared(), make_scheme({"name": "adabm"}), Placement(), images(1), 255.0)
    assert quantized.model.first is quantized.model.second
    assert list(quantized.layers) == ["first"]


def test_quantizing_twice() -> None:
    quantized, _ = quantized_case(("edsr", "adabm", "integer"))
    with pytest.raises(UserError, match="quantized already"):
        apply(quantized.model, make_scheme({"name": "cadyq"}), EVERYTHING, images(1), 255.0)


def test_nothing_to_save_before_calibration(tmp_path: Path) -> None:
    quantized = apply(stock("edsr"), make_scheme({"name": "adabm"}), EVERYTHING, images(1), 255.0)
    with pytest.raises(UserError, match="not calibrated"):
        save(quantized, tmp_path / "q.pt")
    assert not list(tmp_path.iterdir())


def test_files_of_another_kind_and_of_another_network(tmp_path: Path) -> None:
    quantized, _ = quantized_case(("edsr", "adabm", "integer"))
    with pytest.raises(UserError, match="cannot write"):
        save(quantized, tmp_path / "nowhere" / "q.pt")
    save(quantized, tmp_path / "q.pt")
    with pytest.raises(UserError, match="another network"):
        load(stock("sci"), tmp_path / "q.pt")
    torch.save({"weights": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(UserError, match="not written by"):
        load(stock("edsr"), tmp_path / "other.pt")
    (tmp_path / "broken.pt").write_bytes(b"PK\x03\x04nothing")
    with pytest.raises(UserError, match="not a checkpoint, or a damaged one"):
        load(stock("edsr"), tmp_path / "broken.pt")


def test_images_of_the_wrong_range_and_targets_that_match_nothing() -> None:
    with pytest.raises(UserError, match=r"0\.\.255"):
        quantize(stock("edsr"), make_scheme({"name": "adabm"}), EVERYTHING, [images() / 255], 255.0)
    with pytest.raises(UserError, match=r"'bodi\.\*'; the nearest are body"):
        apply(stock("edsr"), make_scheme({"name": "adabm"}), Placement(("bodi.*",)), images(1), 255.0)


def test_a_model_without_our_quantizers() -> None:
    with pytest.raises(UserError, match="attach_scheme"):
        network(stock("edsr"))

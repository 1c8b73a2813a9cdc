from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from small_networks import SMALL, inputs_for
from spandrel import ModelLoader

from qsci_plugins.architectures.network import Network
from qsci_plugins.architectures.registry import STOCK, load_network, recognise


def _changed(network: Network) -> Network:
    """Every tensor moved, as training would: a loader that leaves one out is caught."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for tensor in network.module.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(torch.rand(tensor.shape, generator=generator) * 0.05)
    return network


@pytest.mark.parametrize(("architecture", "scale", "settings"), SMALL)
def test_a_saved_network_is_recognised_and_computes_the_same(
    architecture: str, scale: int | None, settings: dict[str, Any], tmp_path: Path
) -> None:
    network = _changed(load_network(architecture, None, scale, **settings))
    save_file(
        {name: tensor.clone() for name, tensor in network.module.state_dict().items()}, tmp_path / "it.safetensors"
    )
    again = load_network(
        None,
        tmp_path / "it.safetensors",
        scale=scale if network.architecture == "idn" else None,
        **{name: value for name, value in settings.items() if name == "value_range"},
    )
    assert again.architecture == network.architecture
    open_settings = {"residual_scale", "value_range", "signed_output"}
    assert {name: value for name, value in again.settings.items() if name not in open_settings} == {
        name: value for name, value in network.settings.items() if name not in open_settings
    }
    inputs = inputs_for(network)
    with torch.no_grad():
        if again.settings.get("signed_output"):
            again.module.signed_output = False
        assert torch.equal(again.module(*inputs), network.module(*inputs))


@pytest.mark.parametrize(("architecture", "scale", "settings"), SMALL)
def test_each_state_dict_has_one_owner(architecture: str, scale: int | None, settings: dict[str, Any]) -> None:
    network = load_network(architecture, None, scale, **settings)
    state = network.module.state_dict()
    assert [stock.name for stock in STOCK if stock.detect(state)] == [network.architecture]
    assert recognise(state) == network.architecture


@pytest.mark.parametrize(("architecture", "scale", "settings"), SMALL)
def test_output_has_the_described_shape(architecture: str, scale: int | None, settings: dict[str, Any]) -> None:
    network = load_network(architecture, None, scale, **settings)
    inputs = inputs_for(network, height=10, width=14)
    with torch.no_grad():
        output = network.module(*inputs)
    if network.task == "sr":
        assert output.shape == (2, 3, 10 * network.scale, 14 * network.scale)
        assert network.scale == scale
    else:
        assert output.shape == ((2, 4, 10, 14) if network.channels == 1 else (2, network.channels, 4, 10, 14))
    modules = dict(network.module.named_modules())
    assert network.blocks
    assert all(name in modules for name in network.blocks)


@pytest.mark.parametrize(("architecture", "scale", "settings"), SMALL)
def test_settings_rebuild_the_network(architecture: str, scale: int | None, settings: dict[str, Any]) -> None:
    network = load_network(architecture, None, scale, seed=3, **settings)
    again = load_network(network.architecture, None, seed=3, **network.settings)
    assert again.settings == network.settings
    for name, tensor in network.module.state_dict().items():
        assert torch.equal(tensor, again.module.state_dict()[name])


@pytest.mark.parametrize(("architecture", "scale", "settings"), SMALL)
def test_spandrel_recognises_it(architecture: str, scale: int | None, settings: dict[str, Any]) -> None:
    network = _changed(load_network(architecture, None, scale, **settings))
    descriptor = ModelLoader().load_from_state_dict(network.module.state_dict())
    assert descriptor.architecture.id == network.architecture
    if network.architecture == "idn" and scale != 4:
        return  # its tensors do not tell the scale, and spandrel has no way to be told
    assert descriptor.scale == network.scale


def test_spandrel_calls_an_upscaler_with_images_in_0_to_1() -> None:
    network = load_network("edsr", None, 2, blocks=1, width=4)
    descriptor = ModelLoader().load_from_state_dict(network.module.state_dict())
    image = torch.rand(1, 3, 6, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = (network.module(image * 255) / 255).clamp(0, 1)
    assert torch.allclose(descriptor(image), expected, atol=1e-6)


def test_residual_scale_of_the_large_edsr_is_assumed_and_can_be_overruled(tmp_path: Path) -> None:
    state = load_network("edsr_large", None, 2, blocks=1).module.state_dict()
    torch.save(state, tmp_path / "large.pt")
    assert load_network(None, tmp_path / "large.pt").settings["residual_scale"] == 0.1
    assert load_network(None, tmp_path / "large.pt", residual_scale=1.0).settings["residual_scale"] == 1.0


def test_the_same_seed_gives_the_same_weights_and_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, same, other = (load_network("rdn", None, 2, seed, blocks=1, width=4) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.module.SFENet1.weight, same.module.SFENet1.weight)
    assert not torch.equal(first.module.SFENet1.weight, other.module.SFENet1.weight)

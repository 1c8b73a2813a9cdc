from __future__ import annotations

import pytest
import torch

from qsci_plugins.architectures.registry import load_network
from qsci_plugins.schemes.placement import Placement, place
from qsci_plugins.training.attention_transfer import (
    FeatureMaps,
    attention_distance,
    attention_map,
    feature_sites,
)

SETTINGS = {
    "edsr": {"blocks": 2, "width": 8},
    "srresnet": {"blocks": 2, "width": 8},
    "rdn": {"blocks": 2, "layers": 2, "growth": 4, "width": 8},
    "carn": {"width": 8},
    "idn": {"blocks": 2},
}
LAST = {"edsr": "tail", "srresnet": "tail", "rdn": "UPNet", "carn": "upsample.up2", "idn": "deconv"}


def test_the_map_of_a_feature_is_where_its_channels_are_strong() -> None:
    feature = torch.tensor([[[[3.0, 0.0], [0.0, 4.0]], [[0.0, 0.0], [0.0, 0.0]]]])
    # channel means of the squares 4.5 and 8, divided by their length
    assert attention_map(feature).tolist()[0] == pytest.approx([4.5 / 84.25**0.5, 0, 0, 8 / 84.25**0.5])
    assert torch.allclose(attention_map(10 * feature), attention_map(feature))


def test_the_distance_is_a_mean_of_squares() -> None:
    first, other = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.6, 0.8]])
    assert attention_distance(first, other).item() == pytest.approx((0.4**2 + 0.8**2) / 2)
    assert attention_distance(first, first).item() == 0


@pytest.mark.parametrize("architecture", SETTINGS)
def test_the_last_feature_is_what_enters_the_upsampler(architecture: str) -> None:
    network = load_network(architecture, None, 2, **SETTINGS[architecture])
    layers = list(place(network.module, Placement()))
    sites = feature_sites(network.module, network.blocks, layers, torch.rand(1, 3, 12, 12))
    assert sites.upsampler == LAST[architecture]
    assert list(sites.blocks) == network.blocks


def test_of_a_residual_block_the_branch_is_compared() -> None:
    torch.manual_seed(0)
    network = load_network("edsr", None, 2, blocks=2, width=8)
    module = network.module
    x = torch.rand(1, 3, 12, 12) * 255
    sites = feature_sites(module, network.blocks, list(place(module, Placement())), x)
    assert sites.blocks == {"body.0": True, "body.1": True}
    branches: list[torch.Tensor] = []
    last: list[torch.Tensor] = []
    for block in network.blocks:
        module.get_submodule(f"{block}.body.2").register_forward_hook(lambda m, args, y: branches.append(y))
    module.get_submodule("tail").register_forward_pre_hook(lambda m, args: last.append(args[0]))
    maps = FeatureMaps(module, sites)
    with torch.no_grad():
        module(x)
    mine, blocks = maps.take()
    assert mine is not None
    assert torch.equal(mine, attention_map(last[0]))
    for got, branch in zip(blocks, branches, strict=True):
        assert torch.allclose(got, attention_map(branch), atol=1e-4)
    maps.close()
    with torch.no_grad():
        module(x)
    assert maps.take() == (None, [])

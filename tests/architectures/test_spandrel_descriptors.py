"""A network that spandrel describes computes here what spandrel's own call computes, at the sizes that it takes."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from spandrel import ModelLoader
from spandrel.architectures.Compact import Compact
from spandrel.architectures.DnCNN import DnCNN
from spandrel.architectures.DRUNet import DRUNet
from spandrel.architectures.LaMa import LaMa
from spandrel.architectures.MixDehazeNet import MixDehazeNet
from spandrel.architectures.MMRealSR import MMRealSR
from spandrel.architectures.RealCUGAN import UpCunet2x_fast
from spandrel.architectures.SeemoRe import SeemoRe
from spandrel.architectures.SPAN import SPAN
from torch import nn

from qsci_plugins.architectures import spandrel_bridge
from qsci_plugins.architectures.network import Network
from qsci_plugins.architectures.registry import STOCK, load_network
from qsci_plugins.errors import UserError
from qsci_plugins.evaluation.torch_networks import torch_upscaler
from qsci_plugins.schemes.placement import Placement, called_layers, place


def _real_esrgan_with_degradation() -> nn.Module:
    small: dict[str, Any] = {"num_feats": [8] * 4, "num_blocks": [1] * 4, "downscales": [2, 2, 2, 1]}
    return MMRealSR(num_in_ch=3, num_out_ch=3, scale=4, num_feat=8, num_block=1, num_grow_ch=4, **small)


NETWORKS: dict[str, Any] = {
    "noise map": lambda: DRUNet(in_nc=4, out_nc=3, nc=[8, 16, 16, 16], nb=2),
    "noise map of another": lambda: DnCNN(in_nc=4, out_nc=3, nc=8, nb=8, act_mode="R", mode="FDnCNN"),
    "none": lambda: DnCNN(in_nc=3, out_nc=3, nc=8, nb=8, act_mode="R"),
    "grey": lambda: DnCNN(in_nc=1, out_nc=1, nc=8, nb=8, act_mode="R"),
    "range": lambda: MixDehazeNet(embed_dims=[8, 16, 32, 16, 8], depths=[1, 1, 1, 1, 1]),
    "tuple": _real_esrgan_with_degradation,
    "minimum": UpCunet2x_fast,
}


def _saved(name: str, folder: Path) -> Path:
    torch.manual_seed(0)
    file = folder / "it.pth"
    torch.save(NETWORKS[name]().state_dict(), file)
    return file


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_the_network_computes_what_spandrel_computes_with_it(name: str, tmp_path: Path) -> None:
    file = _saved(name, tmp_path)
    network, descriptor = load_network(None, file), ModelLoader().load_from_file(file)
    image = np.random.default_rng(0).integers(0, 256, (13, 27, 3), dtype=np.uint8)
    ours = torch_upscaler(network.module, 1.0, network.scale, network.valid_size)(image)
    x = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    if descriptor.input_channels == 1:
        theirs = torch.cat([descriptor(x[:, colour : colour + 1]) for colour in range(3)], dim=1)
    else:
        theirs = descriptor(x)
    wanted = (theirs[0] * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    assert ours.shape == wanted.shape
    assert np.abs(ours.astype(int) - wanted).max() <= 1
    batch = torch.rand(2, 3, *network.valid_size(16, 16))
    assert torch.allclose(network.module(batch)[1:], network.module(batch[1:]), atol=1e-5)


@torch.no_grad()
def test_convolutions_that_span_computes_from_others_are_folded(tmp_path: Path) -> None:
    torch.manual_seed(0)
    torch.save(SPAN(num_in_ch=3, num_out_ch=3, feature_channels=8, upscale=4).state_dict(), tmp_path / "it.pth")
    network, descriptor = load_network(None, tmp_path / "it.pth"), ModelLoader().load_from_file(tmp_path / "it.pth")
    x = torch.rand(1, 3, 9, 12)
    assert torch.allclose(network.module(x), descriptor.model.eval()(x), atol=1e-5)
    layers = place(network.module, Placement())
    assert len(layers) == 25  # the joined features have a layer each
    assert layers.keys() == called_layers(network.module, x).keys()
    assert all(network.module.get_submodule(name).weight.requires_grad for name in layers)


def test_a_network_whose_layers_depend_on_the_image_is_refused(tmp_path: Path) -> None:
    module = SeemoRe(scale=4, num_experts=3, num_layers=2, embedding_dim=16)
    torch.save(module.state_dict(), tmp_path / "it.pth")
    with pytest.raises(UserError, match="holds SeemoRe, which chooses among its layers by the image"):
        load_network(None, tmp_path / "it.pth")


def test_the_architectures_of_spandrel_extra_arches_are_known_where_it_is_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    extra = ModuleType("spandrel_extra_arches")
    calls: list[dict[str, bool]] = []
    extra.install = lambda **settings: calls.append(settings)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "spandrel_extra_arches", extra)
    spandrel_bridge.register(STOCK)
    assert calls == [{"ignore_duplicates": True}]


def test_valid_sizes() -> None:
    network = Network(nn.Identity(), "any", 1, 1.0, size_multiple=16, size_minimum=40, square=True)
    assert network.valid_size(20, 90) == (96, 96)
    assert network.sizes() == "multiples of 16 and at least 40 and equal sides"
    assert Network(nn.Identity(), "any", 1, 1.0).valid_size(1, 7) == (1, 7)


def test_a_network_that_needs_a_mask_is_refused(tmp_path: Path) -> None:
    torch.save(LaMa(in_nc=4, out_nc=3).state_dict(), tmp_path / "it.pth")
    with pytest.raises(UserError, match="holds LaMa, which needs a mask beside the image"):
        load_network(None, tmp_path / "it.pth")


@torch.no_grad()
def test_channels_of_a_chain_come_nearer_to_one_range(tmp_path: Path) -> None:
    torch.manual_seed(0)
    compact = Compact(num_in_ch=3, num_out_ch=3, num_feat=8, num_conv=2, upscale=2)
    compact.body[2].weight *= torch.logspace(-2, 0, 8).reshape(-1, 1, 1, 1)
    torch.save(compact.state_dict(), tmp_path / "it.pth")
    network, spandrels = load_network(None, tmp_path / "it.pth"), ModelLoader().load_from_file(tmp_path / "it.pth")
    x = torch.rand(1, 3, 16, 16)
    assert torch.allclose(network.module(x), spandrels.model(x), atol=1e-5)

    def ratio(module: nn.Module) -> float:
        largest: list[torch.Tensor] = []
        hook = module.get_submodule("body.4").register_forward_pre_hook(
            lambda _, inputs: largest.append(inputs[0].abs().amax((0, 2, 3)))
        )
        module(x)
        hook.remove()
        return (largest[0].max() / largest[0].min()).item()

    assert ratio(network.module) < 2 * ratio(spandrels.model) ** 0.5

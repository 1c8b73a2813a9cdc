from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn

from qsci_plugins.architectures.sci.efficientsci import EfficientSCI
from qsci_plugins.architectures.sr.edsr import EDSR
from qsci_plugins.schemes.sites import find_sites


def layers_of(model: nn.Module) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d | nn.Conv3d | nn.Linear)]


def test_residual_blocks_of_edsr() -> None:
    model = EDSR(blocks=2, width=4, scale=2, residual_scale=0.1)
    sites = find_sites(model, torch.rand(1, 3, 8, 8), layers_of(model))
    assert not sites.attentions
    assert list(sites.blocks) == ["body.0", "body.1"]
    block = sites.blocks["body.1"]
    assert block.readers == ("body.1.body.0",)
    assert block.branch == "body.1.body.2"


def test_a_branch_that_ends_in_something_else_has_no_branch_layer() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 3, padding=1)
            self.norm = nn.BatchNorm2d(4)

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(self.conv(x)) + x

    sites = find_sites(nn.Sequential(Block()), torch.rand(1, 4, 8, 8), ["0.conv"])
    assert sites.blocks["0"].readers == ("0.conv",)
    assert sites.blocks["0"].branch is None


def test_attentions_of_efficientsci() -> None:
    model = EfficientSCI(in_ch=8, units=1)
    mask = torch.ones(1, 2, 8, 8)
    sites = find_sites(model, (torch.rand(1, 8, 8), mask, mask.sum(1)), layers_of(model))
    assert list(sites.attentions) == [f"resdnet_list.0.cformer_list.{i}.tsab" for i in range(2)]
    site = next(iter(sites.attentions.values()))
    assert (site.heads, site.key_heads, site.scores, site.context, site.fused) == (4, 4, 0, 1, False)
    # this network scales the scores
    assert site.query_scale == 1.0


def test_windows_of_swinir() -> None:
    from spandrel.architectures.SwinIR import SwinIR

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = SwinIR(
            img_size=8,
            depths=[2],
            embed_dim=12,
            num_heads=[3],
            window_size=4,
            mlp_ratio=2,
            upscale=2,
            upsampler="pixelshuffledirect",
        )
        sites = find_sites(model, torch.rand(1, 3, 8, 8), layers_of(model))
    names = [f"layers.0.residual_group.blocks.{i}.attn" for i in range(2)]
    assert list(sites.attentions) == names
    # this one scales the queries
    assert sites.attentions[names[0]].query_scale == 4**-0.5
    assert sites.attentions[names[0]].heads == 3


def test_the_network_is_left_as_it_was() -> None:
    model = EDSR(blocks=1, width=4, scale=2)
    model.train()
    model.body[0].eval()
    find_sites(model, torch.rand(1, 3, 8, 8), layers_of(model))
    assert model.training
    assert not model.body[0].training
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())

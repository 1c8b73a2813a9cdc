"""A network that calls its layers and blocks with keywords is treated like its twin that does not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from qsci_plugins import brevitas, nncf
from qsci_plugins.architectures.adapted import equalise_channels
from qsci_plugins.schemes.block_skip import attach_skips, detach_skips, residual_blocks
from qsci_plugins.schemes.content import Content, set_content
from qsci_plugins.schemes.placement import Placement
from qsci_plugins.schemes.registry import make_scheme
from qsci_plugins.training.attention_transfer import FeatureMaps, feature_sites

WIDTH = 6


class Block(nn.Module):
    def __init__(self, keywords: bool) -> None:
        super().__init__()
        self.keywords = keywords
        self.conv1 = nn.Conv2d(WIDTH, WIDTH, 3, padding=1)
        self.conv2 = nn.Conv2d(WIDTH, WIDTH, 3, padding=1)

    def forward(self, feature: Tensor) -> Tensor:
        if self.keywords:
            return self.conv2(input=self.conv1(input=feature).relu()) + feature  # type: ignore[no-any-return]
        return self.conv2(self.conv1(feature).relu()) + feature  # type: ignore[no-any-return]


class Residual(nn.Module):
    """Enlarges twice; channels of very different magnitude."""

    def __init__(self, keywords: bool) -> None:
        super().__init__()
        self.keywords = keywords
        self.head = nn.Conv2d(3, WIDTH, 3, padding=1)
        self.blocks = nn.ModuleList(Block(keywords) for _ in range(2))
        self.tail = nn.Conv2d(WIDTH, 12, 3, padding=1)
        self.shuffle = nn.PixelShuffle(2)

    def forward(self, x: Tensor) -> Tensor:
        feature = self.head(input=x) if self.keywords else self.head(x)
        for block in self.blocks:
            feature = block(feature=feature) if self.keywords else block(feature)
        return self.shuffle(input=self.tail(input=feature)) if self.keywords else self.shuffle(self.tail(feature))  # type: ignore[no-any-return]


def twins() -> list[nn.Module]:
    torch.manual_seed(0)
    plain = Residual(False).eval()
    with torch.no_grad():
        plain.head.weight *= torch.logspace(-2, 1, WIDTH).reshape(-1, 1, 1, 1)
    named = Residual(True).eval()
    named.load_state_dict(plain.state_dict())
    return [plain, named]


ADABM = {"name": "adabm", "weight_bits": 4, "activation_bits": 4, "form": "integer"}
CADYQ = {"name": "cadyq", "quantize_skip": True}
IMAGES = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("backend", [nncf, brevitas], ids=["nncf", "brevitas"])
@pytest.mark.parametrize("scheme", [ADABM, CADYQ], ids=["adabm", "cadyq"])
def test_quantized_networks_are_equal(scheme: dict[str, Any], backend: Any) -> None:
    placement = Placement(targets=("blocks.*",), eight_bit=("tail",))
    plain, named = (backend.quantize(m, make_scheme(scheme), placement, [IMAGES], 1.0) for m in twins())
    assert list(named.layers) == list(plain.layers)
    assert list(named.blocks) == list(plain.blocks)
    assert bool(plain.blocks) == (scheme is CADYQ)
    with torch.no_grad():
        assert torch.equal(named.model(IMAGES), plain.model(IMAGES))
        assert torch.equal(named.fab(IMAGES), plain.fab(IMAGES))


def test_channels_are_equalised_alike() -> None:
    plain, named = (equalise_channels(module) for module in twins())
    assert sum("ChannelScale" in type(m).__name__ for m in plain.modules()) == 5
    with torch.no_grad():
        assert torch.equal(named(IMAGES), plain(IMAGES))
    assert all(torch.equal(a, b) for a, b in zip(named.state_dict().values(), plain.state_dict().values(), strict=True))


def test_residual_blocks_are_found_and_skipped_alike() -> None:
    results = []
    for module in twins():
        assert residual_blocks(module, (IMAGES,)) == ["blocks.0", "blocks.1"]
        attach_skips(module, ["blocks.1"])
        set_content(Content(torch.zeros(2), torch.zeros(2, 2), image_factor=torch.tensor([-1.0, 0.0])))
        try:
            with torch.no_grad():
                results.append(module(IMAGES))
        finally:
            set_content(None)
        detach_skips(module)
        assert not module.blocks[1]._forward_hooks_with_kwargs  # type: ignore[index, union-attr]
        with torch.no_grad():
            whole = module(IMAGES)
        assert torch.equal(results[-1][1], whole[1])
        assert not torch.equal(results[-1][0], whole[0])
    assert torch.equal(results[0], results[1])


def test_distillation_sees_the_same_features() -> None:
    found = []
    for module in twins():
        sites = feature_sites(module, ["blocks.0", "blocks.1"], ["blocks.0.conv1", "blocks.1.conv1"], IMAGES)
        assert sites.blocks == {"blocks.0": True, "blocks.1": True}
        assert sites.upsampler is not None
        maps = FeatureMaps(module, sites)
        with torch.no_grad():
            module(IMAGES)
        last, blocks = maps.take()
        maps.close()
        assert last is not None
        found.append([last, *blocks])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))

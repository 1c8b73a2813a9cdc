"""Blocks that smooth images skip: which modules are residual, which are chosen, and what a forward then gives."""

from __future__ import annotations

import copy
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import qsci_plugins.brevitas.backend as brevitas_backend
import qsci_plugins.nncf.backend as nncf_backend
from qsci_plugins.architectures.sr.edsr import EDSR
from qsci_plugins.errors import UserError
from qsci_plugins.openvino.export import export_upscaler
from qsci_plugins.openvino.lowering import lower
from qsci_plugins.openvino.runtime import Upscaler
from qsci_plugins.schemes.bit_width import record_bits
from qsci_plugins.schemes.block_skip import choose_blocks, residual_blocks
from qsci_plugins.schemes.content import image_gradient
from qsci_plugins.schemes.placement import Placement
from qsci_plugins.schemes.registry import make_scheme
from qsci_plugins.schemes.scheme import QuantizedNetwork

BACKENDS = pytest.mark.parametrize("backend", [nncf_backend, brevitas_backend])
SETTINGS: dict[str, Any] = {
    "name": "adabm",
    "weight_bits": 8,
    "activation_bits": 8,
    "image_mapping": False,
    "layer_mapping": False,
    "image_percentile": 40.0,
    "skip_share": 0.5,
}


class Scaled(nn.Module):
    """Like a residual block, but that it scales its input."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return 0.5 * x + self.conv(x)


class Group(nn.Module):
    """A residual block of residual blocks, and modules that are none."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, 4, 3, padding=1)
        self.same = nn.Conv2d(4, 4, 3, padding=1)
        self.scaled = Scaled()
        self.inner = nn.ModuleList(Added() for _ in range(2))
        self.twice = Added()

    def forward(self, x: Tensor) -> Tensor:
        x = self.scaled(self.same(self.head(x)))
        for block in self.inner:
            x = block(x)
        return self.twice(self.twice(x))


class Added(nn.Module):
    """x + b(PReLU(a(x))), with an argument beside the image."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.act, self.b = nn.Conv2d(4, 4, 3, padding=1), nn.PReLU(), nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor, size: int = 0) -> Tensor:
        return x + self.b(self.act(self.a(x)))


def images() -> Tensor:
    """Four smooth images, then four busy ones."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(8, 3, 24, 24, generator=generator)
    return (100 + torch.tensor([4.0] * 4 + [120.0] * 4).view(-1, 1, 1, 1) * noise).round()


def stock(blocks: int = 4) -> EDSR:
    torch.manual_seed(0)
    return EDSR(blocks=blocks, width=8, scale=2).eval()


def quantized(backend: ModuleType, **settings: Any) -> QuantizedNetwork:
    scheme = make_scheme({**SETTINGS, **settings})
    placement = Placement(("body.*",), ("head.*", "tail.*"))
    return backend.quantize(stock(), scheme, placement, [images()], 255.0)  # type: ignore[no-any-return]


def without(model: nn.Module, names: tuple[str, ...]) -> nn.Module:
    """A copy whose blocks of these names are left out."""
    model = copy.deepcopy(model)
    for name in names:
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, nn.Identity())
    return model


def test_residual_blocks_add_a_branch_to_their_input() -> None:
    torch.manual_seed(0)
    image = torch.rand(1, 3, 8, 8)
    assert residual_blocks(Group(), (image,)) == ["inner.0", "inner.1"]
    assert residual_blocks(Group(), (image,), ("*.1", "head")) == ["inner.1"]
    assert residual_blocks(stock(2), (image * 255,)) == ["body.0", "body.1"]


def test_the_blocks_that_change_the_output_least_are_chosen() -> None:
    model = stock()
    with torch.no_grad():
        for index, scale in enumerate((1.0, 0.01, 2.0, 0.02)):
            model.body[index].body[2].weight.mul_(scale)
            model.body[index].body[2].bias.mul_(scale)
    names = [f"body.{index}" for index in range(4)]
    steps: list[tuple[int, int]] = []
    chosen = choose_blocks(model, names, 2, (images(),), lambda done, total: steps.append((done, total)))
    assert chosen == ["body.1", "body.3"]
    assert steps == [(1, 2), (2, 2)]
    assert all("forward" not in module.__dict__ for module in model.modules())


@BACKENDS
def test_smooth_images_skip_blocks_and_busy_ones_do_not(backend: ModuleType, tmp_path: Path) -> None:
    network = quantized(backend)
    assert len(network.skipped) == 2
    batch = images()
    thresholds = network.thresholds()
    assert thresholds is not None
    smooth = image_gradient(batch)[0] < thresholds[0]
    assert 0 < int(smooth.sum()) < len(batch)
    with record_bits() as ledger, torch.no_grad():
        output = network.model(batch)
    fab = ledger.mean(network.counted())
    assert torch.equal(fab[smooth], torch.full((int(smooth.sum()),), 8 * 5 / 9))  # of nine layers four are skipped
    assert torch.equal(fab[~smooth], torch.full((int((~smooth).sum()),), 8.0))
    routes = {factor: lower(None, network, factor) for factor in (-1, 0, 1)}
    with torch.no_grad():
        shallow, full = routes[-1](batch), routes[0](batch)
        # equal but for flips of rounding, which are small beside what the blocks make
        apart = (shallow - full).abs().mean((1, 2, 3))
        assert bool(((output - shallow)[smooth].abs().mean((1, 2, 3)) < 0.35 * apart[smooth]).all())
        assert bool(((output - full)[~smooth].abs().mean((1, 2, 3)) < 0.35 * apart[~smooth]).all())
    # what is saved skips the same blocks, in a copy and in a new process's network alike
    backend.save(network, tmp_path / "network.pt")
    again = backend.load(stock(), tmp_path / "network.pt")
    assert again.skipped == network.skipped
    with torch.no_grad():
        assert torch.equal(again.model(batch), output)
        assert torch.equal(copy.deepcopy(network.model)(batch), output)


@BACKENDS
def test_the_float_form_skips_nothing(backend: ModuleType) -> None:
    network = quantized(backend)
    assert network.float_form is not None
    with torch.no_grad():
        assert torch.allclose(network.float_form()(images()), stock()(images()), atol=1.0)


def test_the_lowest_route_lacks_the_blocks(tmp_path: Path) -> None:
    network = quantized(brevitas_backend)
    manifest = export_upscaler(network, None, tmp_path / "m", tile=(24, 24), scale=2, overlap=2)
    skipped = tuple(f"{name}." for name in network.skipped)
    low, middle, high = manifest.routes
    assert {name for name, bits in low.bits.items() if bits == 0} == {n for n in low.bits if n.startswith(skipped)}
    assert set(middle.bits.values()) == {8.0}
    assert (low.fab, middle.fab) == (pytest.approx(8 * 5 / 9), 8.0)
    assert middle.graph == high.graph, "images of many bits take the same graph, as nothing else adapts"
    sizes = [(tmp_path / "m" / route.graph.name).read_text().count('type="Convolution"') for route in (low, middle)]
    assert sizes[1] - sizes[0] == 4
    upscaler = Upscaler(tmp_path / "m", precision="f32")
    order = image_gradient(images())[0].argsort()
    for image, factor in ((images()[order[0]], -1), (images()[order[-1]], 0)):
        result = upscaler.upscale(image.permute(1, 2, 0).numpy().astype(np.uint8))
        assert [min(route.factor, 0) for route in upscaler.last_routes] == [factor]
        with torch.no_grad():
            expected = network.model(image[None])[0].permute(1, 2, 0).clamp(0, 255).round().numpy()
        assert np.abs(result - expected).max() <= 1
    # fitted tiles are no larger than those of the manifest, or none would be smooth
    rows, columns = Upscaler(tmp_path / "m", tile="fit").plan(60, 80)
    assert rows.tile * columns.tile <= 24 * 24


def test_what_cannot_skip_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"scheme\.skip_share: .*published form skips no blocks"):
        make_scheme({"name": "adabm", "form": "faithful", "skip_share": 0.5})
    with pytest.raises(UserError, match=r"skip_share: 0\.5 of the 0 residual blocks that match tail\.\* is none"):
        quantized(brevitas_backend, skip_blocks=["tail.*"])
    network = quantized(brevitas_backend)
    with pytest.raises(UserError, match="mode: routed"):
        export_upscaler(network, None, tmp_path / "m", tile=(24, 24), scale=2, overlap=2, mode="dynamic")

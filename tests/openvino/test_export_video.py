"""Networks that reconstruct video, exported: convolutions, linear layers and attention products in u8 and i8."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import openvino
import pytest
import torch
from openvino_networks import integer_layers
from plain import apply_plain, calibrate
from torch import Tensor, nn

from qsci_plugins.architectures.sci.efficientsci import EfficientSCI, TemporalAttention
from qsci_plugins.architectures.sci.stformer import STFormer
from qsci_plugins.data.snapshots import random_mask
from qsci_plugins.errors import UserError
from qsci_plugins.evaluation.latency import open_graph
from qsci_plugins.openvino.convert import convert_like
from qsci_plugins.openvino.export import export_reconstructor
from qsci_plugins.openvino.gradient import measurement_gradient, route_factor
from qsci_plugins.openvino.lowering import lower
from qsci_plugins.openvino.manifest import Manifest, load_manifest
from qsci_plugins.openvino.precisions import cpu_saturates, runtime_precisions
from qsci_plugins.openvino.reconstructor import Reconstructor
from qsci_plugins.openvino.runtime import Upscaler
from qsci_plugins.schemes.content import set_content
from qsci_plugins.schemes.placement import Placement
from qsci_plugins.schemes.registry import make_scheme
from qsci_plugins.schemes.scheme import QuantizedNetwork
from qsci_plugins.schemes.shortcuts import SHORTCUTS, add_shortcuts

FRAMES, SIDE = 3, 20
TILE = (SIDE, SIDE)


def measured(seed: int = 0, frames: int = FRAMES) -> tuple[Tensor, Tensor, Tensor]:
    """The measurement of a smooth video, its mask and the mask's sum."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, frames, 3 + 2 * seed, 3 + 2 * seed, generator=generator)
    video = nn.functional.interpolate(coarse, TILE, mode="bilinear")
    mask = (torch.rand(1, frames, *TILE, generator=generator) > 0.5).float()
    return (mask * video).sum(1), mask, mask.sum(1).clamp_min(1.0)


def efficientsci() -> nn.Module:
    torch.manual_seed(0)
    return EfficientSCI(in_ch=8, units=1).eval()


def stformer() -> nn.Module:
    torch.manual_seed(0)
    return STFormer(dim=4, units=1, frames=FRAMES, heads=2, window=4).eval()


def quantized(stock: nn.Module, settings: dict[str, Any], placement: Placement = Placement()) -> QuantizedNetwork:  # noqa: B008
    network = apply_plain(stock, make_scheme(settings), placement, measured(), 1.0)
    for number, attention in enumerate(network.attentions.values()):
        for operand in (attention.query, attention.key):
            if operand.shift is not None:
                generator = torch.Generator().manual_seed(number)
                with torch.no_grad():
                    operand.shift.normal_(0, 0.1, generator=generator)
    calibrate(network, [measured(seed) for seed in range(3)])
    network.model.eval()
    set_content(None)
    return network


def opened(folder: Path, manifest: Manifest, factor: int = 0) -> openvino.CompiledModel:
    return open_graph(folder / manifest.route(factor).graph.name, folder / manifest.weights.name, threads=1)


def run(compiled: openvino.CompiledModel, inputs: tuple[Tensor, ...]) -> Tensor:
    names = ("measurement", "mask", "mask_sum")
    given = {name: tensor.numpy() for name, tensor in zip(names, inputs, strict=True)}
    return torch.from_numpy(compiled(given)["video"])


def products(compiled: openvino.CompiledModel) -> list[str]:
    """Precisions of what computes attentions: one kernel each, which OpenVINO names after its last step."""
    precisions = [layer.precision for layer in runtime_precisions(compiled) if layer.type in ("Subgraph", "MatMul")]
    return [precision for precision in precisions if precision in ("u8", "i8")]


@pytest.fixture(scope="module")
def calibrated() -> tuple[nn.Module, QuantizedNetwork]:
    """EfficientSCI at 8 bits, for tests that leave it as it is."""
    stock = efficientsci()
    return stock, quantized(stock, QSCI)


QSCI = {"name": "qsci", "weight_bits": 8, "activation_bits": 8}
CASES = {
    "efficientsci_w8a8": (efficientsci, QSCI, Placement()),
    "efficientsci_w4a4": (efficientsci, {"name": "qsci"}, Placement()),
    "efficientsci_w3a3_no_shift": (
        efficientsci,
        {"name": "qsci", "weight_bits": 3, "activation_bits": 3, "shift": False},
        Placement(),
    ),
    "efficientsci_shortcuts": (
        lambda: add_shortcuts(efficientsci(), ["fem.*", "vrm.*"]),
        {"name": "qsci"},
        Placement(eight_bit=(SHORTCUTS,)),
    ),
    "stformer_w8a8": (stformer, QSCI, Placement()),
    "stformer_w4a4": (stformer, {"name": "qsci"}, Placement()),
}


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_qsci_is_exported_as_torch_computes_it_in_integers(case: str, tmp_path: Path) -> None:
    make, settings, placement = CASES[case]
    stock = make()
    network = quantized(stock, settings, placement)
    manifest = export_reconstructor(network, stock, tmp_path / "m", tile=TILE, frames=FRAMES, overlap=1)
    assert load_manifest(tmp_path / "m") == manifest
    assert (manifest.task, manifest.frames, manifest.channels, manifest.scale) == ("sci", FRAMES, 1, 1)
    compiled = opened(tmp_path / "m", manifest)
    shares = []
    # inputs of which no value lies so near to a rounding edge that the two ways to divide part, in 32 or in 64 bits
    for inputs in (measured(5), measured(8), measured(11)):
        expected = network.model(*inputs)
        error = (expected - stock(*inputs)).abs().mean()
        shares.append(((run(compiled, inputs) - expected).abs().mean() / error).item())
        lowered = (lower(stock, network)(*inputs) - expected).abs()
        assert lowered.mean() < 0.02 * error
    # a value on a rounding edge may fall to the other side, and then moves its neighbourhood by a step: not always
    assert sorted(shares)[1] < 0.2
    layers = integer_layers(compiled)
    assert {name for name, integer in layers.items() if integer} >= set(network.layers)
    assert network.attentions
    if not cpu_saturates():
        assert len(products(compiled)) >= len(network.attentions)


@pytest.mark.parametrize("bits", [8, 4, 2])
@torch.no_grad()
def test_an_attention_alone_equals_torch(bits: int) -> None:
    torch.manual_seed(0)
    stock = nn.Sequential(TemporalAttention(32, 4)).eval()
    x = torch.randn(36, FRAMES, 32)
    scheme = make_scheme({"name": "qsci", "weight_bits": bits, "activation_bits": bits})
    network = apply_plain(stock, scheme, Placement(), x, 1.0)
    attention = network.attentions["0"]
    attention.query.shift.copy_(torch.randn(4, 1, 1))
    attention.key.shift.copy_(torch.randn(4, 1, 1))
    calibrate(network, [(x,)])
    network.model.eval()
    expected = network.model(x)
    lowered = lower(stock, network)
    assert (lowered(x) - expected).abs().max() < 1e-5 * expected.abs().max()
    compiled = open_graph(convert_like(lowered, (x,)), threads=1)
    actual = torch.from_numpy(compiled([x.numpy()])[0])
    assert ((actual - expected).abs() > 1e-5 * expected.abs().max()).float().mean() < 0.02
    assert products(compiled) or cpu_saturates()
    # the shift is in the graph
    attention.query.shift.zero_()
    assert (lower(stock, network)(x) - expected).abs().mean() > 0.05 * expected.abs().mean()


@torch.no_grad()
def test_adabm_takes_the_route_of_the_measurement(tmp_path: Path) -> None:
    stock = efficientsci()
    network = quantized(stock, {"name": "adabm", "weight_bits": 8, "activation_bits": 6, "reconstruct_weights": False})
    inputs = {seed: measured(seed) for seed in (0, 2, 5)}
    gradients = {seed: measurement_gradient(given[0][0].numpy()) for seed, given in inputs.items()}
    low, middle, high = sorted(gradients.values())
    network.input_module.lower.fill_((low + middle) / 2)
    network.input_module.upper.fill_((middle + high) / 2)
    manifest = export_reconstructor(network, stock, tmp_path / "m", tile=TILE, frames=FRAMES, overlap=1)
    assert manifest.thresholds is not None
    assert len({route.graph for route in manifest.routes}) == 3
    routes = {seed: route_factor(gradient, *manifest.thresholds) for seed, gradient in gradients.items()}
    assert sorted(routes.values()) == [-1, 0, 1]
    graphs = {factor: opened(tmp_path / "m", manifest, factor) for factor in (-1, 0, 1)}
    for seed, given in inputs.items():
        expected = network.model(*given)
        distances = {factor: (run(graph, given) - expected).abs().mean().item() for factor, graph in graphs.items()}
        assert min(distances, key=distances.__getitem__) == routes[seed]
        assert manifest.route(routes[seed]).fab == pytest.approx(network.fab(given).item())


@torch.no_grad()
def test_colour_and_wrong_sizes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    stock = EfficientSCI(in_ch=8, units=1, color_ch=3).eval()
    network = quantized(stock, QSCI)
    arguments: dict[str, Any] = {"tile": TILE, "frames": FRAMES, "overlap": 1}
    with pytest.raises(UserError, match="has it 3 frames and 1 channels"):
        export_reconstructor(network, stock, tmp_path / "m", **arguments)
    manifest = export_reconstructor(network, stock, tmp_path / "m", channels=3, **arguments)
    assert run(opened(tmp_path / "m", manifest), measured()).shape == (1, 3, FRAMES, *TILE)
    with pytest.raises(UserError, match="enlarges no images"):
        Upscaler(tmp_path / "m")
    network.attentions["resdnet_list.0.cformer_list.0.tsab"].map.calibrated.fill_(False)
    with pytest.raises(UserError, match="tsab is not calibrated"):
        export_reconstructor(network, stock, tmp_path / "m", channels=3, **arguments)


@pytest.mark.parametrize(
    ("tile", "overlap", "message"),
    [
        (
            (32, 48),
            8,
            "a tile of 32 pixels is too small for an overlap of 8; take one of 35 or more, or a smaller overlap",
        ),
        ((16, 16), None, "a tile of 16 pixels is too small for an overlap of 16; take one of 51 or more"),
        ((30, 28), 9, "a tile of 30 pixels is too small for an overlap of 9; take one of 31 or more"),
        ((17, 16), 1, r"of a measurement \[17, 16\], .*; take a tile of multiples of its strides, such as \[18, 16\]"),
    ],
)
def test_a_tile_that_does_not_fit_is_refused_as_by_the_runtime(
    tile: tuple[int, int],
    overlap: int | None,
    message: str,
    calibrated: tuple[nn.Module, QuantizedNetwork],
    tmp_path: Path,
) -> None:
    stock, network = calibrated
    with pytest.raises(UserError, match=message):
        export_reconstructor(network, stock, tmp_path / "m", tile=tile, frames=FRAMES, overlap=overlap)
    assert not list(tmp_path.iterdir())


def test_the_smallest_tile_of_an_overlap_runs(calibrated: tuple[nn.Module, QuantizedNetwork], tmp_path: Path) -> None:
    stock, network = calibrated
    export_reconstructor(network, stock, tmp_path / "m", tile=(30, 32), frames=FRAMES, overlap=8)
    mask = random_mask(FRAMES, 50, 70)
    frames = Reconstructor(tmp_path / "m", mask, threads=1).reconstruct(mask.sum(0) / 2)
    assert frames.shape == mask.shape
    assert np.isfinite(frames).all()


@torch.no_grad()
def test_the_published_form_is_refused(tmp_path: Path) -> None:
    stock = efficientsci()
    network = quantized(stock, {**QSCI, "form": "faithful"})
    for layer in network.layers.values():
        layer.activation = None
    network.layers = {}
    with pytest.raises(UserError, match=r"tsab \(query\): .*form: integer"):
        lower(stock, network)


@pytest.mark.parametrize(("bits", "precision"), [(4, "f32"), (5, "auto")])
def test_beside_very_few_levels_the_rest_stays_in_f32(bits: int, precision: str, tmp_path: Path) -> None:
    stock = efficientsci()
    network = quantized(stock, {**QSCI, "weight_bits": bits, "activation_bits": bits})
    manifest = export_reconstructor(network, stock, tmp_path / "m", tile=TILE, frames=FRAMES, overlap=1)
    assert manifest.precision == precision

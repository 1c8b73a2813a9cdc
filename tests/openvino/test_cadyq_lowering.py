"""CADyQ's bits, chosen by each layer for each image, are chosen inside the exported graph as well."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openvino
import pytest
import torch
from openvino_networks import ADABM_BODY, integer_layers, small_edsr, smooth_images
from plain import apply_plain, calibrate
from torch import Tensor, nn

from qsci_plugins.errors import UserError
from qsci_plugins.evaluation.latency import open_graph
from qsci_plugins.openvino.convert import convert
from qsci_plugins.openvino.export import Mode, export_upscaler
from qsci_plugins.openvino.layers import DynamicLayer, StaticLayer
from qsci_plugins.openvino.lowering import layer_bits, lower
from qsci_plugins.openvino.runtime import Upscaler
from qsci_plugins.schemes.bit_selector import BitSelector
from qsci_plugins.schemes.bit_width import record_bits
from qsci_plugins.schemes.content import set_content
from qsci_plugins.schemes.pams import SymmetricActivation
from qsci_plugins.schemes.placement import Placement
from qsci_plugins.schemes.registry import make_scheme
from qsci_plugins.schemes.scheme import QuantizedNetwork

TILE = (24, 24)


def selectors(network: QuantizedNetwork) -> dict[str, BitSelector]:
    return {name: q.activation for name, q in network.layers.items() if isinstance(q.activation, BitSelector)}


@torch.no_grad()
def bits_of(network: QuantizedNetwork, images: Tensor) -> Tensor:
    """Bits of each image and layer, (N,L)."""
    with record_bits() as ledger:
        network.model(images)
    chosen = [ledger.mean([q]).expand(len(images)) for q in selectors(network).values()]
    return torch.stack(chosen, 1)


@torch.no_grad()
def spread(network: QuantizedNetwork, images: Tensor) -> None:
    """Sets the selectors so that one follows the image gradient, the next the features' deviation, and so on.

    Scores k * s - c_k with c from the middle between neighbouring images: candidate k wins between c's differences.
    """
    for index, selector in enumerate(selectors(network).values()):
        weight = torch.zeros_like(selector.weight[0])
        weight[:2] = 1.0 if index % 2 == 0 else 0.0
        weight[2:] = 0.0 if index % 2 == 0 else 1.0
        selector.weight.copy_(torch.arange(3.0)[:, None] * weight)
        seen: list[Tensor] = []
        selector.bias.zero_()
        handle = selector.register_forward_pre_hook(lambda module, args, seen=seen: seen.append(module.scores(args[0])))
        network.model(images)
        handle.remove()
        low, middle, high = seen[0][:, 1].sort().values
        first, second = (low + middle) / 2, (middle + high) / 2
        selector.bias.copy_(torch.stack([torch.zeros(()), -first, -first - second]))
        if index % 3 == 2:
            # and one layer gives the fewest bits where the others give the most
            selector.weight.copy_(selector.weight.flip(0))
            selector.bias.copy_(selector.bias.flip(0))


@pytest.fixture(scope="module")
def case() -> tuple[nn.Module, QuantizedNetwork, Tensor]:
    stock = small_edsr()
    batch = smooth_images(6, TILE[0])
    network = apply_plain(stock, make_scheme({"name": "cadyq"}), ADABM_BODY, batch[:1], stock.value_range)
    calibrate(network, [batch[:3], batch[3:]])
    network.model.eval()
    images = smooth_images(6, TILE[0], seed=5)[[0, 3, 5]]
    spread(network, images)
    set_content(None)
    return stock, network, images


def nearly(actual: Tensor, expected: Tensor) -> None:
    """Equal but where a value on a rounding edge fell to the other side and moved its neighbourhood by a step.

    Other bits in one layer move an image by a mean of 3 % of the deviation or more.
    """
    for difference in (actual - expected).abs():
        assert difference.median() < 1e-3
        assert difference.mean() < 0.003 * expected.std()


def compiled(lowered: nn.Module, shape: torch.Size) -> openvino.CompiledModel:
    return open_graph(convert(lowered, shape), threads=1)


def test_the_images_of_this_file_get_different_bits(case: tuple[nn.Module, QuantizedNetwork, Tensor]) -> None:
    _, network, images = case
    bits = bits_of(network, images)
    assert all(sorted(column.tolist()) == [4, 6, 8] for column in bits.T)
    assert len({tuple(column.tolist()) for column in bits.T}) > 1


@pytest.mark.parametrize("factor", [None, -1, 0, 1])
@torch.no_grad()
def test_the_lowered_network_chooses_the_same_bits(
    case: tuple[nn.Module, QuantizedNetwork, Tensor], factor: int | None
) -> None:
    stock, network, images = case
    lowered = lower(stock, network, factor)
    kinds = {name: type(m) for name, m in lowered.named_modules() if isinstance(m, DynamicLayer | StaticLayer)}
    assert {name.removeprefix("network.") for name, kind in kinds.items() if kind is DynamicLayer} == set(
        selectors(network)
    )
    assert len(kinds) == len(network.layers)
    nearly(lowered(images), network.model(images))
    for image in images:
        nearly(lowered(image[None]), network.model(image[None]))


@torch.no_grad()
def test_openvino_chooses_the_same_bits_and_computes_in_integers(
    case: tuple[nn.Module, QuantizedNetwork, Tensor],
) -> None:
    stock, network, images = case
    lowered = lower(stock, network)
    batch, single = compiled(lowered, images.shape), compiled(lowered, images[:1].shape)
    expected = lowered(images)
    nearly(torch.from_numpy(batch([images.numpy()])[0]), expected)
    for image, wanted in zip(images, expected, strict=True):
        nearly(torch.from_numpy(single([image[None].numpy()])[0]), wanted[None])
    for graph in (batch, single):
        layers = integer_layers(graph)
        assert {name.removeprefix("network.") for name, integer in layers.items() if integer} == set(network.layers)


@torch.no_grad()
def test_the_bits_of_one_image_would_not_do_for_another(case: tuple[nn.Module, QuantizedNetwork, Tensor]) -> None:
    stock, network, images = case
    expected = lower(stock, network)(images)
    for selector, bits in zip(selectors(network).values(), bits_of(network, images)[0], strict=True):
        bias = selector.bias.clone()
        selector.bias.add_(1e9 * (selector.bits == bits))
        moved = lower(stock, network)(images)
        selector.bias.copy_(bias)
        assert torch.equal(moved[0], expected[0])
        assert all((moved - expected)[1:].abs().mean((1, 2, 3)) > 0.01 * expected.std())


@pytest.mark.parametrize("mode", ["static", "routed"])
@torch.no_grad()
def test_one_graph_serves_every_image(
    case: tuple[nn.Module, QuantizedNetwork, Tensor], mode: Mode, tmp_path: Path
) -> None:
    stock, network, images = case
    manifest = export_upscaler(network, stock, tmp_path / "m", tile=TILE, scale=2, overlap=2, mode=mode)
    assert manifest.thresholds is None
    (route,) = manifest.routes
    assert route.fab == 8.0
    assert set(route.bits.values()) == {8.0} == set(layer_bits(network, 0).values())
    graph = openvino.Core().read_model(tmp_path / "m" / route.graph.name, tmp_path / "m" / manifest.weights.name)
    runner = open_graph(graph, threads=1)
    layers = integer_layers(runner)
    assert {name.removeprefix("network.") for name, integer in layers.items() if integer} == set(network.layers)
    for image in images:
        actual = runner([image.permute(1, 2, 0)[None].to(torch.uint8).numpy()])[0]
        expected = network.model(image[None]).clamp(0, 255).round().permute(0, 2, 3, 1)
        assert (torch.from_numpy(actual).float() - expected).abs().mean() < 0.1


@pytest.fixture(scope="module")
def exported(case: tuple[nn.Module, QuantizedNetwork, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The static model of `case` for tiles of TILE."""
    stock, network, _ = case
    folder = tmp_path_factory.mktemp("cadyq") / "m"
    export_upscaler(network, stock, folder, tile=TILE, scale=2, overlap=2, mode="static")
    return folder


@pytest.mark.parametrize("size", [(24, 24), (18, 20), (40, 52)])
def test_a_graph_run_at_another_size_measures_that_size(
    case: tuple[nn.Module, QuantizedNetwork, Tensor], exported: Path, size: tuple[int, int], tmp_path: Path
) -> None:
    stock, network, _ = case
    export_upscaler(network, stock, tmp_path / "there", tile=size, scale=2, overlap=2, mode="static")
    there, elsewhere = (Upscaler(folder, threads=1, tile="image") for folder in (tmp_path / "there", exported))
    bits = []
    for seed in range(3):
        square = smooth_images(6, 52, seed=seed)[2 * seed, :, : size[0], : size[1]]
        image = square.permute(1, 2, 0).to(torch.uint8).contiguous().numpy()
        difference = np.abs(there.upscale(image).astype(int) - elsewhere.upscale(image))
        assert [route.bits for route in there.last_routes] == [route.bits for route in elsewhere.last_routes]
        assert difference.mean() < 0.05
        bits += [route.bits for route in there.last_routes]
    assert len(set(bits)) > 1


@torch.no_grad()
def test_a_constant_output_grid_follows_the_layer() -> None:
    torch.manual_seed(0)
    layer = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1)).eval()
    images = smooth_images(3, TILE[0])
    for settings, kind in (({"name": "cadyq"}, DynamicLayer), ({"name": "cadyq"}, StaticLayer)):
        placement = Placement(("*",)) if kind is DynamicLayer else Placement((), ("*",))
        network = apply_plain(layer, make_scheme(settings), placement, images[:1], 255.0)
        output = SymmetricActivation((5,), integer=True)
        network.model[0].register_forward_hook(lambda module, args, y, output=output: output(y))
        network.layers["0"].output = output
        calibrate(network, [images])
        lowered = lower(layer, network)
        assert any(isinstance(module, kind) for module in lowered.modules())
        expected = network.model(images)
        assert len(expected.unique()) <= 31
        actual = torch.from_numpy(compiled(lowered, images.shape)([images.numpy()])[0])
        for result in (lowered(images), actual):
            assert ((result - expected).abs() > 1e-3).float().mean() < 0.01


@torch.no_grad()
def test_what_is_left_is_refused(case: tuple[nn.Module, QuantizedNetwork, Tensor]) -> None:
    stock, _, images = case
    network = apply_plain(
        stock, make_scheme({"name": "cadyq", "quantize_skip": True}), ADABM_BODY, images[:1], stock.value_range
    )
    calibrate(network, [images])
    with pytest.raises(UserError, match=r"body\.0: the quantized input of a residual block .*quantize_skip: false"):
        lower(stock, network)

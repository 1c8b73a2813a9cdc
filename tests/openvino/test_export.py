"""Model folders: what is in them, how large they are, that the same network gives the same bytes."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import openvino
import pytest
import torch
from openvino_networks import ADABM_BODY, EVERYWHERE, calibrated_edsr, integer_layers
from torch import Tensor, nn
from torch.nn import functional as F

import qsci_plugins
from qsci_plugins.errors import UserError
from qsci_plugins.evaluation.latency import open_graph
from qsci_plugins.openvino.convert import convert
from qsci_plugins.openvino.export import Mode, export_upscaler
from qsci_plugins.openvino.manifest import load_manifest
from qsci_plugins.openvino.precisions import runtime_precisions

TILE = (20, 24)


def graph_of(folder: Path, factor: int) -> openvino.Model:
    manifest = load_manifest(folder)
    return openvino.Core().read_model(folder / manifest.route(factor).graph.name, folder / manifest.weights.name)


def test_three_routes_share_one_file_of_weights(tmp_path: Path) -> None:
    stock, network = calibrated_edsr({"layer_mapping": False}, blocks=1)
    written = export_upscaler(network, stock, tmp_path / "m", tile=TILE, scale=2, overlap=2, about={"set": "none"})
    manifest = load_manifest(tmp_path / "m")
    assert manifest == written
    assert manifest.thresholds == (20.0, 60.0)
    assert [route.factor for route in manifest.routes] == [-1, 0, 1]
    assert [route.fab for route in manifest.routes] == [3.0, 4.0, 5.0]
    assert manifest.weight_bits["body.0.body.0"] == 4
    assert manifest.weight_bits["tail.1"] == 8
    assert manifest.about["set"] == "none"
    assert len(manifest.files()) == 6
    bins = [(tmp_path / "m" / route.graph.name).with_suffix(".bin") for route in manifest.routes]
    assert len({file.stat().st_ino for file in bins}) == 1
    assert {file.name for file in (tmp_path / "m").iterdir()} == {
        "manifest.json",
        *(file.name for file in manifest.files()),
    }
    weights = sum(layer.weight.numel() for layer in stock.modules() if isinstance(layer, torch.nn.Conv2d))
    assert weights < manifest.weights.bytes < 1.2 * weights + 2000


def test_openvino_alone_opens_every_graph_of_a_folder(tmp_path: Path) -> None:
    stock, network = calibrated_edsr({"layer_mapping": False}, blocks=1)
    export_upscaler(network, stock, tmp_path / "m", tile=TILE, scale=2, overlap=2)
    graphs = sorted((tmp_path / "m").glob("*.xml"))
    assert len(graphs) == 3
    image = np.random.default_rng(0).integers(0, 256, (1, *TILE, 3), dtype=np.uint8)
    for graph in graphs:
        core = openvino.Core()
        result = core.compile_model(core.read_model(graph), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(image)[0]
        factor = {"minus": -1, "zero": 0, "plus": 1}[graph.name.partition("-")[0]]
        assert np.array_equal(result, open_graph(graph_of(tmp_path / "m", factor))(image)[0])


def test_where_links_fail_the_constants_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*names: object) -> None:
        raise OSError("no hard links here")

    monkeypatch.setattr(os, "link", no_links)
    stock, network = calibrated_edsr({"layer_mapping": False}, blocks=1)
    export_upscaler(network, stock, tmp_path / "m", tile=TILE, scale=2, overlap=2)
    for graph in (tmp_path / "m").glob("*.xml"):
        assert openvino.Core().read_model(graph).output(0).shape == [1, 2 * TILE[0], 2 * TILE[1], 3]


def test_every_quantized_layer_of_every_route_runs_in_8_bits(tmp_path: Path) -> None:
    modes: tuple[Mode, ...] = ("routed", "static")
    everywhere = {"weight_bits": 8, "activation_bits": 8}
    for mode, placement, settings in zip(modes, (ADABM_BODY, EVERYWHERE), ({}, everywhere), strict=True):
        stock, network = calibrated_edsr(settings, placement, blocks=1)
        manifest = export_upscaler(network, stock, tmp_path / "m", tile=TILE, scale=2, overlap=2, mode=mode)
        for factor in [route.factor for route in manifest.routes]:
            layers = integer_layers(open_graph(graph_of(tmp_path / "m", factor)))
            assert set(layers) == set(network.layers)
            assert all(layers.values()), layers


def test_activations_between_two_quantized_layers_stay_8_bit(tmp_path: Path) -> None:
    stock, network = calibrated_edsr()
    export_upscaler(network, stock, tmp_path / "m", tile=TILE, scale=2, overlap=2, mode="static")
    written = {layer.name: layer.output for layer in runtime_precisions(open_graph(graph_of(tmp_path / "m", 0)))}
    # behind these, the next quantized layer follows without a sum between
    for name in ("body.0.body.0", "body.1.body.0", "tail.0.0"):
        assert written[name] in ("u8", "i8"), name


def test_where_bits_do_not_follow_the_image_one_graph_serves_all(tmp_path: Path) -> None:
    stock, network = calibrated_edsr(placement=ADABM_BODY)
    for quantizers in network.layers.values():
        if quantizers.counted:
            quantizers.activation.bit_width.limits = (6, 6)
    manifest = export_upscaler(network, stock, tmp_path / "m", tile=TILE, scale=2, overlap=2)
    assert len({route.graph.name for route in manifest.routes}) == 1
    stock, network = calibrated_edsr({"image_mapping": False})
    manifest = export_upscaler(network, stock, tmp_path / "m", tile=TILE, scale=2, overlap=2)
    assert len(manifest.routes) == 1
    assert manifest.thresholds is None


def test_the_same_network_gives_the_same_bytes(tmp_path: Path) -> None:
    stock, network = calibrated_edsr(blocks=1)
    first = export_upscaler(network, stock, tmp_path / "a", tile=TILE, scale=2, overlap=2, mode="static")
    second = export_upscaler(network, stock, tmp_path / "b", tile=TILE, scale=2, overlap=2, mode="static")
    assert first == second


@torch.no_grad()
def test_integer_files_are_a_third_of_the_float_ones(tmp_path: Path) -> None:
    stock, network = calibrated_edsr(width=32, blocks=1)
    file = tmp_path / "float.xml"
    openvino.save_model(convert(stock, (1, 3, *TILE), tuned=False), file, compress_to_fp16=False)
    manifest = export_upscaler(network, stock, tmp_path / "m", tile=TILE, scale=2, overlap=2, mode="static")
    assert manifest.weights.bytes < 0.3 * file.with_suffix(".bin").stat().st_size
    image = torch.rand(1, 3, *TILE) * 255
    assert abs(open_graph(file)([image.numpy()])[0] - stock(image).numpy()).max() < 1e-2


def test_impossible_exports_are_refused(tmp_path: Path) -> None:
    stock, network = calibrated_edsr()
    with pytest.raises(UserError, match="too small for an overlap"):
        export_upscaler(network, stock, tmp_path / "m", tile=TILE, scale=2, overlap=20)
    with pytest.raises(UserError, match="is its scale 3"):
        export_upscaler(network, stock, tmp_path / "m", tile=TILE, scale=3, overlap=2)
    network.layers["tail.1"].activation.calibrated.fill_(False)
    with pytest.raises(UserError, match="not calibrated"):
        export_upscaler(network, stock, tmp_path / "m", tile=TILE, scale=2, overlap=2)
    assert list(tmp_path.iterdir()) == []


def test_networks_of_values_up_to_one_take_the_same_images(tmp_path: Path) -> None:
    stock, network = calibrated_edsr({"weight_bits": 8, "activation_bits": 8}, EVERYWHERE, value_range=1.0)
    export_upscaler(network, stock, tmp_path / "m", tile=TILE, scale=2, overlap=2, mode="static")
    image = torch.randint(0, 256, (1, *TILE, 3), dtype=torch.uint8)
    with torch.no_grad():
        network.input_module.lower.fill_(-1.0)
        network.input_module.upper.fill_(1e9)
        expected = (network.model(image.permute(0, 3, 1, 2) / 255) * 255).clamp(0, 255).round().permute(0, 2, 3, 1)
    actual = torch.from_numpy(open_graph(graph_of(tmp_path / "m", 0))([image.numpy()])[0])
    assert actual.dtype == torch.uint8
    assert (actual.float() - expected).abs().mean() < 1
    assert actual.float().std() > 5


class _Unfolded(nn.Module):
    """Gathers the places around every pixel of a quantized convolution's output, as KBNet does."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.last = nn.Conv2d(72, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        around = F.unfold(self.first(x), 3, padding=1)
        return self.last(around.reshape(x.shape[0], -1, *x.shape[-2:]))


def test_a_quantized_convolution_that_is_unfolded_compiles(tmp_path: Path) -> None:
    images = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 255
    settings = {"name": "adabm", "weight_bits": 8, "activation_bits": 8, "image_mapping": False, "layer_mapping": False}
    quantized = qsci_plugins.quantize(_Unfolded(), images, scheme=settings)
    qsci_plugins.export(quantized, tmp_path / "m", tile=(16, 16), overlap=0)
    picture = images[0].round().byte()
    expected = quantized.model(picture[None].float())[0].clamp(0, 255).round().permute(1, 2, 0)
    found = qsci_plugins.Upscaler(tmp_path / "m", precision="f32").upscale(picture.permute(1, 2, 0).numpy())
    assert np.abs(found.astype(float) - expected.detach().numpy()).max() <= 1

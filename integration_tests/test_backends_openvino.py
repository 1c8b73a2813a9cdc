"""Whichever backend quantized a network, the exported one chooses the same bits and computes the same."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from openvino_networks import integer_layers
from torch import Tensor

from qsci_plugins.architectures.sci.efficientsci import EfficientSCI
from qsci_plugins.architectures.sr.edsr import EDSR
from qsci_plugins.brevitas import backend as brevitas
from qsci_plugins.evaluation.latency import open_graph
from qsci_plugins.nncf import backend as nncf
from qsci_plugins.openvino.export import export_reconstructor, export_upscaler
from qsci_plugins.openvino.manifest import Manifest
from qsci_plugins.openvino.precisions import has_bf16
from qsci_plugins.openvino.runtime import Upscaler
from qsci_plugins.schemes.bit_selector import BitSelector
from qsci_plugins.schemes.content import image_gradient
from qsci_plugins.schemes.placement import Placement
from qsci_plugins.schemes.registry import make_scheme
from qsci_plugins.schemes.scheme import QuantizedNetwork

TILE = (24, 32)
BODY = Placement(("body.*",), ("head.*", "tail.*"))
BACKENDS = pytest.mark.parametrize("backend", [nncf, brevitas], ids=["nncf", "brevitas"])


def small_edsr() -> EDSR:
    torch.manual_seed(0)
    return EDSR(blocks=2, width=16, scale=2, mean_shift=False).eval()


def batches(count: int = 3) -> list[Tensor]:
    """8-bit images between flat and rough."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(count, 3, 3, *TILE, generator=generator) * torch.tensor([0.1, 0.5, 1.0])[:, None, None, None]
    return list((noise * 255).round())


def gradient_limits(images: Tensor) -> tuple[float, float]:
    """Between the gradients of three images."""
    low, middle, high = sorted(image_gradient(images)[0].tolist())
    return (low + middle) / 2, (middle + high) / 2


@torch.no_grad()
def follow_gradient(network: QuantizedNetwork, images: Tensor) -> None:
    """Makes every selector take 4, 6 or 8 bits by the mean gradient of the image alone."""
    first, second = gradient_limits(images)
    for layer in network.layers.values():
        if isinstance(layer.activation, BitSelector):
            layer.activation.weight.zero_()
            layer.activation.weight[:, :2] = torch.tensor([0.0, 0.5, 1.0])[:, None]
            layer.activation.bias.copy_(torch.tensor([0.0, -first, -first - second]))


def same_image(actual: np.ndarray, network: QuantizedNetwork, image: Tensor) -> bool:
    expected = network.model(image[None])[0].permute(1, 2, 0).clamp(0, 255)
    return bool((torch.from_numpy(actual).float() - expected).abs().mean() < 1.0)


@BACKENDS
@pytest.mark.parametrize("scheme", ["cadyq", "adabm"])
@torch.no_grad()
def test_bits_chosen_inside_the_graph(backend: ModuleType, scheme: str, tmp_path: Path) -> None:
    stock, images = small_edsr(), batches()[1]
    settings = {"name": "cadyq"} if scheme == "cadyq" else {"name": "adabm", "weight_bits": 8, "activation_bits": 5}
    with torch.enable_grad():
        network = backend.quantize(stock, make_scheme(settings), BODY, batches(), 255.0)
    network.model.eval()
    if scheme == "cadyq":
        follow_gradient(network, images)
        manifest = export_upscaler(network, stock, tmp_path / "m", tile=TILE, scale=2, overlap=2, mode="static")
    else:
        for bound, value in zip(("lower", "upper"), gradient_limits(images), strict=True):
            getattr(network.input_module, bound).fill_(value)
        manifest = export_upscaler(network, stock, tmp_path / "m", tile=TILE, scale=2, overlap=2, mode="dynamic")
    assert manifest.thresholds is None
    # selectors and thresholds decide in f32, whatever is asked for
    upscalers = [Upscaler(tmp_path / "m", threads=1, precision=precision) for precision in ("f32", "auto")]
    chosen = []
    for image in images:
        pixels = image.permute(1, 2, 0).to(torch.uint8).numpy()
        outputs = [upscaler.upscale(pixels) for upscaler in upscalers]
        bits = [upscaler.last_routes[0].bits for upscaler in upscalers]
        np.testing.assert_array_equal(outputs[0], outputs[1])
        assert bits[0] == bits[1] == pytest.approx(network.fab(image[None]).item(), abs=1e-4)
        assert same_image(outputs[0], network, image)
        chosen.append(bits[0])
    assert len(set(chosen)) == 3
    assert max(chosen) <= manifest.routes[0].fab


@BACKENDS
@torch.no_grad()
def test_qsci_reconstructs_video(backend: ModuleType, tmp_path: Path) -> None:
    torch.manual_seed(5)  # of which no value lies on a rounding edge
    stock = EfficientSCI(in_ch=8, units=1).eval()
    mask = (torch.rand(2, 3, 24, 24) > 0.5).float()
    inputs = ((mask * torch.rand(2, 3, 24, 24)).sum(1), mask, mask.sum(1).clamp_min(1.0))
    scheme = make_scheme({"name": "qsci", "weight_bits": 8, "activation_bits": 8})
    with torch.enable_grad():
        network = backend.quantize(stock, scheme, Placement(), [inputs], 1.0)
    network.model.eval()
    for attention in network.attentions.values():
        attention.query.shift.normal_(0, 0.2)
    manifest: Manifest = export_reconstructor(
        network, stock, tmp_path / "m", tile=(24, 24), frames=3, overlap=1, about={"backend": network.backend}
    )
    graph, weights = tmp_path / "m" / manifest.route(0).graph.name, tmp_path / "m" / manifest.weights.name
    first = tuple(tensor[:1] for tensor in inputs)
    expected = network.model(*first)
    error = (expected - stock(*first)).abs().mean()
    for precision in ("f32", "bf16") if has_bf16() else ("f32",):
        compiled = open_graph(graph, weights, threads=1, precision=precision)  # type: ignore[arg-type]
        actual = torch.from_numpy(compiled([tensor.numpy() for tensor in first])[0])
        # bf16 moves more values over rounding edges than INT8 rounding itself does in a network without training
        allowed = 0.2 * error if precision == "f32" else 0.1 * expected.std()
        assert (actual - expected).abs().mean() < allowed
        assert all(integer_layers(compiled)[name] for name in network.layers)

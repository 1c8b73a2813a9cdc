"""Static networks through the hosts' own calls: traced or exported by torch, converted by OpenVINO, run in u8 and i8."""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino
import pytest
import torch
from torch import Tensor, nn

import qsci_plugins
from qsci_plugins.architectures.sci.efficientsci import EfficientSCI
from qsci_plugins.architectures.sr.edsr import EDSR
from qsci_plugins.openvino.precisions import runtime_precisions

TILE = (24, 32)
SCHEMES: dict[str, dict[str, Any]] = {
    "adabm4": {"name": "adabm", "weight_bits": 4, "activation_bits": 4, "image_mapping": False},
    "adabm8": {"name": "adabm", "weight_bits": 8, "activation_bits": 8, "image_mapping": False},
    "qsci4": {"name": "qsci", "weight_bits": 4, "activation_bits": 4, "attention": []},
    "qsci8": {"name": "qsci", "weight_bits": 8, "activation_bits": 8, "attention": []},
}


def edsr() -> nn.Module:
    torch.manual_seed(0)
    return EDSR(blocks=2, width=16, scale=2, mean_shift=False).eval()


def images() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(6, 3, *TILE, generator=generator) * torch.linspace(0.2, 1, 6)[:, None, None, None]
    return noise * 250 + 0.37  # between the grey levels, where the first layer has a plain range


def converted(call: str, model: nn.Module, inputs: tuple[Tensor, ...]) -> openvino.Model:
    given = inputs if len(inputs) > 1 else inputs[0]
    shapes = [list(each.shape) for each in inputs]
    if call == "trace":
        return openvino.convert_model(model, example_input=given, input=shapes)
    return openvino.convert_model(torch.export.export(model, inputs, strict=False), input=shapes)


def products(compiled: openvino.CompiledModel) -> list[tuple[str, str]]:
    """The kind and the precision of everything that multiplies matrices."""
    kinds = ("Convolution", "FullyConnected", "MatMul", "Deconvolution", "GroupConvolution")
    return [(layer.type, layer.precision) for layer in runtime_precisions(compiled) if layer.type.startswith(kinds)]


@pytest.mark.parametrize("backend", ["nncf", "brevitas"])
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("call", ["trace", "export"])
def test_every_convolution_runs_in_integers_and_gives_what_torch_gives(call: str, scheme: str, backend: Any) -> None:
    quantized = qsci_plugins.quantize(edsr(), images(), scheme=SCHEMES[scheme], backend=backend)
    image = images()[1:2]
    with torch.no_grad():
        expected = quantized.model(image).numpy()
        graph = converted(call, quantized.model, (image,))
    compiled = openvino.compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    precisions = products(compiled)
    assert len(precisions) == 8
    assert {precision for _, precision in precisions} <= {"u8", "i8"}, precisions
    difference = np.abs(compiled(image.numpy())[0] - expected)
    assert difference.mean() < 1e-3 * np.ptp(expected)


# not of torch.export: OpenVINO 2026.4 fails to compile this network's signed convolutions of videos from it
@pytest.mark.parametrize("backend", ["nncf", "brevitas"])
@pytest.mark.parametrize("call", ["trace"])
def test_attention_and_its_projections_run_in_integers(call: str, backend: Any) -> None:
    torch.manual_seed(0)
    stock = EfficientSCI(in_ch=8, units=1).eval()
    generator = torch.Generator().manual_seed(1)
    video = torch.rand(1, 3, 16, 16, generator=generator)
    mask = (torch.rand(1, 3, 16, 16, generator=generator) > 0.5).float()
    inputs = ((mask * video).sum(1), mask, mask.sum(1).clamp_min(1.0))
    scheme = {"name": "qsci", "weight_bits": 4, "activation_bits": 4}
    quantized = qsci_plugins.quantize(stock, [inputs], scheme=scheme, backend=backend, value_range=1.0)
    assert quantized.attentions
    with torch.no_grad():
        expected = quantized.model(*inputs).numpy()
        graph = converted(call, quantized.model, inputs)
    compiled = openvino.compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    precisions = products(compiled)
    # the products of the attentions are in kernels with their softmax, or among these
    assert len(precisions) >= len(quantized.layers)
    assert {precision for _, precision in precisions} <= {"u8", "i8"}, precisions
    difference = np.abs(compiled([each.numpy() for each in inputs])[0] - expected)
    assert difference.mean() < 1e-3 * np.ptp(expected)

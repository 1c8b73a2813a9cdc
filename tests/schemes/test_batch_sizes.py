"""Calibration on single images, as NNCF's loaders give them, and on batches of them: the same network comes out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import nncf
import pytest
import torch
from brevitas.graph.calibrate import calibration_mode
from nncf.quantization.algorithms.pipeline import Pipeline
from nncf.torch.function_hook.nncf_graph.nncf_graph_builder import GraphModelWrapper
from nncf.torch.function_hook.wrapper import wrap_model
from plain import apply_plain, calibrate
from torch import Tensor, nn

import qsci_plugins.brevitas.backend
import qsci_plugins.nncf.backend
from qsci_plugins.architectures.sr.edsr import EDSR
from qsci_plugins.nncf import SchemeQuantization, network
from qsci_plugins.schemes.activation import RangeActivation
from qsci_plugins.schemes.placement import Placement
from qsci_plugins.schemes.registry import make_scheme
from qsci_plugins.schemes.scheme import QuantizedNetwork, Scheme, first_inputs

EVERYWHERE = Placement(("*",))
Quantize = Callable[[nn.Module, Scheme, Sequence[Tensor]], QuantizedNetwork]


def photos() -> Tensor:
    """24 of them, every third of which is bright and the others dark."""
    brightness = torch.tensor([40.0, 60.0, 255.0]).repeat(8).view(-1, 1, 1, 1)
    return torch.rand(24, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * brightness


def edsr() -> nn.Module:
    torch.manual_seed(1)
    return EDSR(blocks=1, width=8, scale=2).eval()


def scheme_of(bits: int, **settings: Any) -> Scheme:
    return make_scheme({"name": "adabm", "weight_bits": bits, "activation_bits": bits, **settings})


def plain(model: nn.Module, scheme: Scheme, batches: Sequence[Tensor]) -> QuantizedNetwork:
    quantized = apply_plain(model, scheme, EVERYWHERE, batches[0][:1])
    calibrate(quantized, batches)
    return quantized


def by_nncf(model: nn.Module, scheme: Scheme, batches: Sequence[Tensor]) -> QuantizedNetwork:
    return qsci_plugins.nncf.backend.quantize(model, scheme, EVERYWHERE, batches, 255.0)


def by_an_nncf_pipeline(model: nn.Module, scheme: Scheme, batches: Sequence[Tensor]) -> QuantizedNetwork:
    wrapper = GraphModelWrapper(wrap_model(model), batches[0][:1])
    algorithm = SchemeQuantization(scheme, EVERYWHERE)
    return network(Pipeline([[algorithm]]).run(wrapper, nncf.Dataset(batches)).model, scheme)


def by_brevitas(model: nn.Module, scheme: Scheme, batches: Sequence[Tensor]) -> QuantizedNetwork:
    return qsci_plugins.brevitas.backend.quantize(model, scheme, EVERYWHERE, batches, 255.0)


def by_calibration_mode(model: nn.Module, scheme: Scheme, batches: Sequence[Tensor]) -> QuantizedNetwork:
    quantized = qsci_plugins.brevitas.backend.apply(model, scheme, EVERYWHERE, batches[0][:1], 255.0)
    with torch.no_grad(), calibration_mode(quantized.model):
        for batch in batches:
            quantized.model(batch)
    return quantized


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("quantize", [plain, by_nncf, by_an_nncf_pipeline, by_brevitas, by_calibration_mode])
def test_single_images_calibrate_as_batches_do(quantize: Quantize, bits: int) -> None:
    images = photos()
    settings = {"image_mapping": False, "reconstruct_weights": False}
    single, batched = (quantize(edsr(), scheme_of(bits, **settings), images.split(size)) for size in (1, 8))
    with torch.no_grad():
        # but for values that lie between two levels
        assert (single.model(images) - batched.model(images)).abs().mean() < 0.05
    ranges = [
        torch.stack([torch.cat([q.lower, q.upper]) for q in found.quantizers() if isinstance(q, RangeActivation)])
        for found in (single, batched)
    ]
    assert len(ranges[0]) >= 5
    torch.testing.assert_close(ranges[0], ranges[1], rtol=1e-4, atol=1e-5)


def test_the_published_form_averages_over_batches_as_they_are() -> None:
    images = photos()
    quantized = plain(edsr(), scheme_of(4, form="faithful"), images.split(1))
    first = next(iter(quantized.layers.values())).activation
    upper = images[0].max()
    for image in images[1:]:
        upper = 0.9 * upper + 0.1 * image.max()
    assert first is not None
    assert float(first.upper.detach()) <= float(upper) + 1e-3


def test_first_inputs_are_joined_where_that_is_a_batch() -> None:
    small, mask = torch.rand(1, 3, 8, 8), torch.rand(4, 8, 8)
    assert first_inputs([(small,)] * 9, 8)[0].shape == (8, 3, 8, 8)
    assert first_inputs([(small.expand(5, 3, 8, 8),)] * 9, 8)[0].shape == (10, 3, 8, 8)
    assert first_inputs([(small,), (small,), (torch.rand(1, 3, 9, 8),), (small,)], 8)[0].shape == (2, 3, 8, 8)
    assert first_inputs([(torch.rand(1, 3, 600, 600),)] * 9, 8)[0].shape == (1, 3, 600, 600)
    # one mask for all images has no axis of images
    assert [x.shape for x in first_inputs([(small, mask)] * 9, 8)] == [small.shape, mask.shape]
    assert first_inputs([(small,)] * 9, 1)[0] is small

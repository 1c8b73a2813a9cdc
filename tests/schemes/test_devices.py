"""Every scheme with its network on a GPU, in both backends, and what a GPU computes in another way than a CPU."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import nncf
import pytest
import torch
from brevitas.graph.quantize import layerwise_quantize
from nncf.quantization.algorithms.pipeline import Pipeline
from nncf.torch.function_hook.nncf_graph.nncf_graph_builder import GraphModelWrapper
from nncf.torch.function_hook.wrapper import wrap_model
from plain import calibrate
from torch import Tensor, nn
from torch.nn import functional as F

import qsci_plugins
from qsci_plugins.api import Backend
from qsci_plugins.architectures.sr.edsr import EDSR
from qsci_plugins.brevitas import attach_scheme, layer_map
from qsci_plugins.nncf import AdaBMQuantization, bits_per_layer
from qsci_plugins.schemes.activation import ImageGridActivation, RangeActivation
from qsci_plugins.schemes.bit_width import BitLedger, StaticBitWidth
from qsci_plugins.schemes.content import _sobel, _sobel_by_differences, image_gradient
from qsci_plugins.schemes.fit import _least_of_stacks, least_error, shrinking
from qsci_plugins.schemes.lsq import LearnedStepActivation
from qsci_plugins.schemes.quantizer import QParams
from qsci_plugins.schemes.registry import make_scheme
from qsci_plugins.schemes.scheme import QuantizedNetwork, inputs_of
from tests.pretended_gpu import pretended_gpu

BACKENDS: tuple[Backend, ...] = ("nncf", "brevitas")

#: this torch may crash when a process that pretended ends, so they run in one of their own
_INSIDE = "QSCI_PRETENDED_GPU"
pretended = pytest.mark.skipif(_INSIDE not in os.environ, reason="runs in the process that the last test starts")

SETTINGS: list[dict[str, Any]] = [
    {"name": "adabm", "mean_bits": 4.0},
    {"name": "adabm", "form": "faithful"},
    {"name": "cadyq"},
    {"name": "cadyq", "form": "faithful"},
    {"name": "qsci"},
    {"name": "qsci", "form": "faithful"},
]


class _Attention(nn.Module):
    """A convolution, an attention over its places, written out or in one call, and its residual."""

    def __init__(self, fused: bool) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, 4, 3, padding=1)
        self.qkv = nn.Linear(4, 12)
        self.tail = nn.Conv2d(4, 3, 3, padding=1)
        self.fused = fused

    def forward(self, x: Tensor) -> Tensor:
        features = self.head(x)
        batch, channels = features.shape[:2]
        rows = self.qkv(features.flatten(2).transpose(1, 2)).reshape(batch, -1, 3, 2, channels // 2)
        query, key, value = rows.permute(2, 0, 3, 1, 4)
        if self.fused:
            out = F.scaled_dot_product_attention(query, key, value)
        else:
            out = ((query * 0.7) @ key.transpose(-2, -1)).softmax(-1) @ value
        out = out.transpose(1, 2).reshape(batch, -1, channels).transpose(1, 2).reshape(features.shape)
        return self.tail(features + out)


class _Network(nn.Module):
    def __init__(self, fused: bool) -> None:
        super().__init__()
        self.attention = _Attention(fused)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x)


def _network(scheme: str, fused: bool = False) -> nn.Module:
    with torch.device("cuda"):
        return (_Network(fused) if scheme == "qsci" else EDSR(blocks=1, width=2, scale=2)).eval()


def _images(device: str = "cpu") -> Tensor:
    return torch.rand(2, 3, 8, 8, device=device) * 255


def _quantized(settings: dict[str, Any], images: Tensor, backend: Backend) -> QuantizedNetwork:
    placement: dict[str, Any] = {} if settings["name"] == "qsci" else {"targets": ["body.*"], "eight_bit": ["head.*"]}
    return qsci_plugins.quantize(_network(settings["name"]), images, scheme=settings, backend=backend, **placement)


def _devices(model: nn.Module) -> set[str]:
    return {str(tensor.device) for tensor in (*model.parameters(), *model.buffers())}


@pretended
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: "-".join(str(value) for value in s.values()))
def test_a_network_on_a_gpu_stays_there(settings: dict[str, Any], backend: Backend) -> None:
    with pretended_gpu():
        quantized = _quantized(settings, _images(), backend)
        assert _devices(quantized.model) == {"cuda:0"}
        assert quantized.device == torch.device("cuda:0")
        assert quantized.model(_images("cuda")).device.type == "cuda"
        assert quantized.fab(_images()).device.type == "cuda"  # images from the other side


@pretended
@pytest.mark.parametrize("backend", BACKENDS)
def test_the_images_may_be_there_too(backend: Backend) -> None:
    with pretended_gpu():
        quantized = _quantized({"name": "adabm", "reconstruct_weights": False}, _images("cuda"), backend)
        assert _devices(quantized.model) == {"cuda:0"}


@pretended
@pytest.mark.parametrize("backend", BACKENDS)
def test_attention_in_one_call(backend: Backend) -> None:
    with pretended_gpu():
        quantized = qsci_plugins.quantize(_network("qsci", fused=True), _images(), scheme="qsci", backend=backend)
        assert len(quantized.attentions) == 1
        assert quantized.model(_images("cuda")).device.type == "cuda"


@pretended
def test_nncfs_own_pipeline_with_a_dataset_on_the_cpu() -> None:
    with pretended_gpu():
        wrapper = GraphModelWrapper(wrap_model(_network("adabm")), _images("cuda"))
        algorithm = AdaBMQuantization(
            targets=["body.*"], image_mapping=False, reconstruct_weights=False, bias_correction=False
        )
        model = Pipeline([[algorithm]]).run(wrapper, nncf.Dataset([_images(), _images()])).model
        assert _devices(model) == {"cuda:0"}
        assert not model._forward_pre_hooks  # it moves no inputs from here on
        assert set(bits_per_layer(qsci_plugins.nncf.network(model)).values()) == {100.0}


@pretended
@pytest.mark.parametrize("name", ["adabm", "cadyq", "qsci"])
def test_brevitas_layerwise_call(name: str) -> None:
    with pretended_gpu():
        off = {"qsci": {"attention": []}, "adabm": {"reconstruct_weights": False, "bias_correction": False}}
        scheme = make_scheme({"name": name, **off.get(name, {})})
        model = layerwise_quantize(_network("adabm"), layer_map(scheme))
        quantized = attach_scheme(model, scheme)
        assert _devices(model) == {"cuda:0"}
        calibrate(quantized, [_images()])
        assert model(_images("cuda")).device.type == "cuda"
        assert _devices(quantized.float_form()) == {"cuda:0"}  # type: ignore[misc]


@pretended
def test_inputs_are_moved() -> None:
    mask = torch.ones(1)
    assert inputs_of(mask) == (mask,)
    with pretended_gpu():
        assert [x.device.type for x in inputs_of([mask, mask], torch.device("cuda"))] == ["cuda", "cuda"]
        assert image_gradient(_images("cuda"))[1].device.type == "cuda"
        with torch.device("cuda"):
            quantizer = RangeActivation(StaticBitWidth(4), integer=True)
        for empty in (
            BitLedger().mean([quantizer]),
            BitLedger().total([quantizer]),
            BitLedger().weighted_total([quantizer]),
        ):
            assert empty.device.type == "cuda"
    assert BitLedger().mean([]).item() == 32.0


def test_sobel_gradients_by_differences() -> None:
    x = torch.rand(3, 1, 9, 7, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(_sobel_by_differences(x), _sobel(x), rtol=0, atol=1e-6)


def test_candidates_tried_at_once_are_those_tried_one_by_one() -> None:
    x = torch.randn(40, 50, generator=torch.Generator().manual_seed(0))
    bits, zero = torch.tensor(3.0), torch.tensor(0.0)

    def rows(ratio: Any) -> QParams:
        return QParams(x.abs().amax(1, keepdim=True) * ratio / 3, None, torch.tensor(-3.0), torch.tensor(3.0), bits)

    def both_ends(ratios: Any) -> QParams:
        low, high = x.min() * ratios[0], x.max() * ratios[1]
        return QParams((high - low) / 7, low, zero, torch.tensor(7.0), bits)

    ratios = shrinking(60)
    pairs = [(a, b) for a in shrinking(10, parts=12) for b in shrinking(10, parts=12)]
    expected = least_error(x, ratios, rows, per_row=True)
    assert len(expected.unique()) > 5
    assert torch.equal(_least_of_stacks(x, ratios, rows, per_row=True), expected)
    assert _least_of_stacks(x, pairs, both_ends, per_row=False) == least_error(x, pairs, both_ends)
    # the first of equals, and never what is no number
    assert _least_of_stacks(x, [torch.nan, 0.5, 0.5], rows, per_row=True).unique().tolist() == [1]


def test_a_truth_is_read_again_after_a_load_and_a_calibration() -> None:
    fresh = LearnedStepActivation(4, integer=True)
    assert not fresh.known("calibrated")
    fresh.update(fresh.reduce(torch.rand(2, 3)))
    fresh.initialise()
    assert fresh.known("calibrated")
    other = LearnedStepActivation(4, integer=True)
    assert not other.known("calibrated")
    other.load_state_dict(fresh.state_dict())
    assert other.known("calibrated")


def test_an_image_on_a_grid_is_known_after_a_reload() -> None:
    image = torch.arange(3 * 16 * 16).view(1, 3, 16, 16) % 256.0
    grid, other = ImageGridActivation(3), ImageGridActivation(3)
    assert other.qparams(image).offset is None
    grid.update(grid.reduce(image))
    grid.initialise()
    assert grid.qparams(image).offset is not None
    other.load_state_dict(grid.state_dict())
    assert torch.equal(other(image), image)


@pytest.mark.skipif(_INSIDE in os.environ, reason="this is that process")
def test_all_that_pretends() -> None:
    # collecting what a FakeTensorMode remembered of storages may crash this torch
    program = (
        "import gc, os, sys, pytest; gc.disable(); code = pytest.main(sys.argv[1:]); sys.stdout.flush(); os._exit(code)"
    )
    command = [sys.executable, "-c", program, "-n", "0", "-q", "-x", "-p", "no:cacheprovider", __file__]
    result = subprocess.run(command, env={**os.environ, _INSIDE: "1"}, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stdout[-4000:]

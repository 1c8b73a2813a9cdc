"""Residual inputs and attention products through NNCF's hooks: the same as through plain torch hooks, bit for bit."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nncf
import nncf.torch
import pytest
import torch
from nncf.quantization.algorithms.pipeline import Pipeline
from nncf.torch.function_hook.nncf_graph.nncf_graph_builder import GraphModelWrapper
from nncf.torch.function_hook.wrapper import wrap_model
from nncf_networks import batches, small_edsr
from plain import apply_plain, calibrate
from torch import Tensor, nn
from torch.nn import functional as F

from qsci_plugins.architectures.sci.efficientsci import EfficientSCI
from qsci_plugins.nncf.algorithm import CADyQQuantization, QSCIQuantization
from qsci_plugins.nncf.backend import apply, load, quantize, save
from qsci_plugins.nncf.hooks import bits_per_layer, network
from qsci_plugins.schemes.bit_width import record_bits
from qsci_plugins.schemes.placement import Placement
from qsci_plugins.schemes.registry import make_scheme
from qsci_plugins.schemes.scheme import QuantizedNetwork, inputs_of

Batches = Sequence[Tensor | tuple[Tensor, ...]]


class Group(nn.Module):
    """A residual group, whose first block reads the group's own input (as in RCAN)."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Block() for _ in range(2)])

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for block in self.blocks:
            y = block(y)
        return x + y


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class Nested(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, 4, 1)
        self.groups = nn.Sequential(Group(), Group())
        self.tail = nn.Conv2d(4, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.head(x)
        return self.tail(x + self.groups(x))


class Attention(nn.Module):
    """One attention module used twice, written with products or as the fused call."""

    def __init__(self, fused: str | None = None) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 8, 1)
        self.attention = SelfAttention(fused)
        self.unembed = nn.Conv2d(8, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        features = self.embed(x)
        tokens = features.flatten(2).mT
        for _ in range(1 if self.attention.fused else 2):
            tokens = tokens + self.attention(tokens)
        return self.unembed(tokens.mT.reshape(features.shape))


class SelfAttention(nn.Module):
    def __init__(self, fused: str | None) -> None:
        super().__init__()
        self.qkv = nn.Linear(8, 24)
        self.proj = nn.Linear(8, 8)
        self.softmax = nn.Softmax(-1)
        self.fused = fused

    def forward(self, tokens: Tensor) -> Tensor:
        count, places, _ = tokens.shape
        q, k, v = self.qkv(tokens).reshape(count, places, 3, 2, 4).permute(2, 0, 3, 1, 4)
        distance = torch.arange(places) / 50
        if self.fused == "mask":
            mixed = F.scaled_dot_product_attention(q, k, v, distance.expand(places, places), scale=0.6)
        elif self.fused == "causal":
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            mixed = self.softmax(q * 0.5 @ k.transpose(-2, -1) + distance) @ v
        return self.proj(mixed.transpose(1, 2).reshape(count, places, 8))


def built(kind: type[nn.Module], **settings: Any) -> nn.Module:
    torch.manual_seed(0)
    return kind(**settings).eval()


def images() -> list[Tensor]:
    return [batch[..., :6, :6] / 255 for batch in batches()]


def snapshots() -> list[tuple[Tensor, ...]]:
    generator = torch.Generator().manual_seed(0)
    mask = (torch.rand(2, 4, 8, 8, generator=generator) > 0.5).float()
    frames = [torch.rand(2, 4, 8, 8, generator=generator) for _ in range(2)]
    return [((video * mask).sum(1), mask, mask.sum(1).clamp_min(1)) for video in frames]


CASES: list[Any] = [
    pytest.param("cadyq", {}, small_edsr, ("body.?.body.*",), batches, id="cadyq-edsr"),
    pytest.param("cadyq", {"quantize_skip": True}, lambda: built(Nested), ("groups.*",), images, id="cadyq-nested"),
    pytest.param(
        "cadyq", {}, lambda: built(EfficientSCI, in_ch=8, units=1), ("resdnet_list.*",), snapshots, id="cadyq-sci"
    ),
    pytest.param("qsci", {"attention": []}, small_edsr, ("body.*",), batches, id="qsci-edsr"),
    pytest.param(
        "qsci", {}, lambda: built(EfficientSCI, in_ch=8, units=1), ("resdnet_list.*",), snapshots, id="qsci-sci"
    ),
    pytest.param("qsci", {}, lambda: built(Attention), ("attention.*",), images, id="qsci-twice"),
    pytest.param("qsci", {}, lambda: built(Attention, fused="mask"), ("*",), images, id="qsci-fused-mask"),
    pytest.param("qsci", {}, lambda: built(Attention, fused="causal"), ("*",), images, id="qsci-fused-causal"),
    pytest.param(
        "adabm", {}, lambda: built(EfficientSCI, in_ch=8, units=1), ("resdnet_list.*",), snapshots, id="adabm-sci"
    ),
]


def assert_same(first: QuantizedNetwork, second: QuantizedNetwork, close: bool = False) -> None:
    assert first.layers.keys() == second.layers.keys()
    assert first.attentions.keys() == second.attentions.keys()
    assert list(first.blocks) == list(second.blocks)
    for quantizer, other in zip(first.quantizers(), second.quantizers(), strict=True):
        assert type(quantizer) is type(other)
        for (name, value), wanted in zip(quantizer.state_dict().items(), other.state_dict().values(), strict=True):
            tolerance = 1e-5 if close else 0.0
            torch.testing.assert_close(value, wanted, rtol=tolerance, atol=0, msg=name)


@pytest.mark.parametrize("form", ["faithful", "integer"])
@pytest.mark.parametrize(("scheme", "settings", "model", "targets", "data"), CASES)
def test_equals_plain_hooks(
    scheme: str, settings: dict[str, Any], model: Any, targets: tuple[str, ...], data: Any, form: str, tmp_path: Path
) -> None:
    method = make_scheme({"name": scheme, "form": form, **settings})
    inputs: Batches = data()
    placement, value_range = Placement(targets), 255.0 if data is batches else 1.0
    plain = apply_plain(model(), method, placement, inputs[0], value_range)
    applied = apply(model(), method, placement, inputs[0], value_range)
    for quantized in (plain, applied):
        calibrate(quantized, inputs)
    piped = quantize(model(), method, placement, inputs, value_range)
    assert_same(applied, plain)
    # the fused call's own rounding is not that of the products written out
    assert_same(piped, plain, close=any(attention.fused for attention in plain.attentions.values()))
    save(applied, tmp_path / "network.pt")
    loaded = load(model(), tmp_path / "network.pt")
    copied = network(copy.deepcopy(applied.model))
    image = inputs_of(inputs[1])
    outputs, gradients, bits = [], [], []
    for quantized in (plain, applied, loaded, copied):
        with record_bits() as ledger:
            output = quantized.model.eval()(*image)
        bits.append(ledger.mean(quantized.counted()).detach())
        quantized.model.zero_grad()
        output.square().mean().backward()
        outputs.append(output.detach())
        trained = [p.grad for q in quantized.quantizers() for p in q.parameters() if p.grad is not None]
        shifts = [a.query.shift.grad for a in quantized.attentions.values() if a.query.shift is not None]
        gradients.append([*trained, *shifts])
    assert all(torch.equal(output, outputs[0]) for output in outputs)
    assert all(torch.equal(fab, bits[0]) for fab in bits)
    for other in gradients[1:]:
        for gradient, wanted in zip(other, gradients[0], strict=True):
            torch.testing.assert_close(gradient, wanted, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize(
    ("algorithm", "model"),
    [
        (CADyQQuantization(targets=("body.*",), form="faithful"), small_edsr),
        (QSCIQuantization(targets=("attention.*",), value_range=1.0), lambda: built(Attention)),
    ],
)
def test_entries_run_in_a_pipeline_and_reload(algorithm: Any, model: Any) -> None:
    data = batches() if model is small_edsr else images()
    wrapper = GraphModelWrapper(wrap_model(model()), data[0][:1])
    quantized = Pipeline([[algorithm]]).run(wrapper, nncf.Dataset(data)).model
    config = json.loads(json.dumps(nncf.torch.get_config(quantized)))
    restored = nncf.torch.load_from_config(model(), config, allowed_modules=("nncf.*", "qsci_plugins.*"))
    restored.load_state_dict(quantized.state_dict())
    with torch.no_grad():
        assert torch.equal(restored(data[1]), quantized(data[1]))
        assert not torch.equal(restored(data[1]), model()(data[1]))
    assert network(restored).calibrated()


def test_a_shared_input_is_quantized_once() -> None:
    quantized = apply(
        small_edsr(),
        make_scheme({"name": "cadyq", "form": "faithful"}),
        Placement(("body.?.body.*",)),
        batches()[0],
        255.0,
    )
    calls = []
    quantized.blocks["body.0"].register_forward_hook(lambda module, arguments, output: calls.append(output))
    with torch.no_grad():
        quantized.model(batches()[0])
        assert len(calls) == 1
        assert set(bits_per_layer(quantized, batches()[0])) >= {"body.0", "body.1", "body.0.body.2"}
    # nothing of a forward stays behind that could not be copied
    quantized.model(batches()[0])
    copy.deepcopy(quantized.model)


def test_window_attention_of_a_stock_network() -> None:
    from spandrel.architectures.SwinIR.__arch.SwinIR import SwinIR

    torch.manual_seed(0)
    model = SwinIR(
        img_size=8,
        window_size=4,
        depths=[2],
        embed_dim=8,
        num_heads=[2],
        mlp_ratio=2,
        upscale=2,
        upsampler="pixelshuffledirect",
    ).eval()
    data = [batch[..., :8, :8] / 255 for batch in batches()]
    placement = Placement(("layers.*",))
    plain = apply_plain(model, make_scheme({"name": "qsci"}), placement, data[0], 1.0)
    calibrate(plain, data)
    quantized = quantize(model, make_scheme({"name": "qsci"}), placement, data, 1.0)
    assert len(quantized.attentions) == 2
    assert_same(quantized, plain)
    with torch.no_grad():
        assert torch.equal(quantized.model(data[1]), plain.model(data[1]))

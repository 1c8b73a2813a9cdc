"""Small networks with a scheme in place, by a plain placement: the lowering must not care which backend did it; and which
layers of a compiled one run in integers."""

from __future__ import annotations

import copy
from typing import Any

import openvino
import torch
from plain import calibrate
from torch import Tensor, nn
from torch.nn import functional as F

from qsci_plugins.architectures.sr.edsr import EDSR
from qsci_plugins.openvino.precisions import runtime_precisions
from qsci_plugins.schemes.content import set_content
from qsci_plugins.schemes.placement import Placement, place
from qsci_plugins.schemes.registry import make_scheme
from qsci_plugins.schemes.scheme import LayerQuantizers, QuantizedNetwork

ADABM_BODY = Placement(("body.*",), ("head.*", "tail.*"))
EVERYWHERE = Placement(("*",))


class PlainQuantized(nn.Module):
    """A layer that quantizes its input and weight, and passes for the layer itself."""

    def __init__(self, layer: nn.Module, quantizers: LayerQuantizers) -> None:
        super().__init__()
        self.layer = layer
        self.quantizers = nn.ModuleList(quantizers)
        self.activation, self.weighting = quantizers.activation, quantizers.weight

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("layer"), name)

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.activation is None else self.activation(x)
        weight = self.layer.weight if self.weighting is None else self.weighting(self.layer.weight)
        if isinstance(self.layer, nn.Linear):
            return F.linear(x, weight, self.layer.bias)
        return self.layer._conv_forward(x, weight, self.layer.bias)


class Bound(nn.Module):
    """A network that runs at one size (height, width) alone."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.register_buffer("plane", torch.zeros(1, 1, *size))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x) + self.plane
        return y


def plain_apply(
    stock: nn.Module, settings: dict[str, Any], placement: Placement, value_range: float
) -> QuantizedNetwork:
    """What a backend does, without a framework."""
    model = copy.deepcopy(stock)
    scheme = make_scheme(settings)
    layers = {}
    for name, precision in place(stock, placement).items():
        layers[name] = scheme.layer(model.get_submodule(name), precision)
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, PlainQuantized(model.get_submodule(name), layers[name]))
    input_module = scheme.input_module(value_range)
    if input_module is not None:
        model.register_forward_pre_hook(_Before(input_module))
    return QuantizedNetwork(model.eval(), "plain", scheme, layers, input_module, value_range)


class _Before:
    """A hook that a copy of the network copies too, other than a function."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __call__(self, _: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor]:
        return (self.module(arguments[0]),)


def smooth_images(count: int, size: int, seed: int = 0, grid: bool = True) -> Tensor:
    """Images (count,3,size,size) in 0..255 of differing roughness, 8-bit levels if `grid`."""
    generator = torch.Generator().manual_seed(seed)
    images = []
    for index in range(count):
        coarse = torch.rand(1, 3, 3 + 3 * index, 3 + 3 * index, generator=generator)
        images.append(F.interpolate(coarse, (size, size), mode="bicubic")[0].clamp(0, 1) * 255)
    stacked = torch.stack(images)
    return stacked.round() if grid else stacked


def small_edsr(scale: int = 2, blocks: int = 2, width: int = 8, **settings: Any) -> EDSR:
    """An EDSR with random weights that roughly keeps the range of images."""
    torch.manual_seed(0)
    network = EDSR(blocks=blocks, width=width, scale=scale, mean_shift=False, **settings).eval()
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    return network


def calibrated_edsr(
    settings: dict[str, Any] | None = None, placement: Placement = ADABM_BODY, **edsr: Any
) -> tuple[EDSR, QuantizedNetwork]:
    """A small EDSR and its calibrated quantized network, free to be changed: calibrated once, then copied."""
    key = repr((settings, placement, sorted(edsr.items())))
    if key not in _CALIBRATED:
        stock = small_edsr(**edsr)
        network = plain_apply(stock, {"name": "adabm", **(settings or {})}, placement, stock.value_range)
        batch = smooth_images(6, 24) * (stock.value_range / 255)
        calibrate(network, [batch[:3], batch[3:]])
        if network.input_module is not None:
            with torch.no_grad():
                network.input_module.lower.fill_(20.0)
                network.input_module.upper.fill_(60.0)
        _CALIBRATED[key] = stock, network
    set_content(None)
    return copy.deepcopy(_CALIBRATED[key])


_CALIBRATED: dict[str, tuple[EDSR, QuantizedNetwork]] = {}


def force_factor(network: QuantizedNetwork, factor: int) -> None:
    """Moves the image thresholds so that every image gets this factor."""
    bounds = {-1: (1e9, 2e9), 0: (-1.0, 1e9), 1: (-2.0, -1.0)}[factor]
    assert network.input_module is not None
    with torch.no_grad():
        network.input_module.lower.fill_(bounds[0])
        network.input_module.upper.fill_(bounds[1])


_ARITHMETIC = {
    "Convolution",
    "FullyConnected",
    "FullyConnectedQuantized",
    "FullyConnectedQuantizedLegacy",
    "MatMul",
    "GroupConvolution",
    "Deconvolution",
}


def integer_layers(compiled: openvino.CompiledModel) -> dict[str, bool]:
    """Whether each convolution, linear layer or matrix product runs on 8-bit integers, by name."""
    return {
        layer.name: layer.precision in ("u8", "i8")
        for layer in runtime_precisions(compiled)
        if layer.type in _ARITHMETIC
    }

"""Ways to run a network on images, what its layers take in bits and cost the output, and the operations at these bits."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from qsci_plugins.architectures.network import Network
from qsci_plugins.evaluation.complexity import FLOAT_BITS, cadyq_bitops, count_macs, ops
from qsci_plugins.evaluation.torch_networks import torch_upscaler
from qsci_plugins.schemes.bit_width import BitLedger, record_bits
from qsci_plugins.schemes.quantizer import Mode
from qsci_plugins.schemes.scheme import QuantizedNetwork, inputs_of, set_mode

__all__ = [
    "BitMeter",
    "ImageForm",
    "PatchBits",
    "costliest",
    "float_form",
    "layer_errors",
    "macs_720p",
    "quantized_operations",
]

#: height and width of the output that operations are counted for, as in the papers
OUTPUT_720P = (720, 1280)


@dataclass(frozen=True)
class PatchBits:
    """A patch in low-resolution pixels, its mean gradient as AdaBM and CADyQ measure it, and its FAB."""

    top: int
    left: int
    height: int
    width: int
    gradient: float
    fab: float


@dataclass(frozen=True)
class ImageForm:
    """A way to run a network: uint8 (h,w,3) to uint8 (scale*h,scale*w,3), and further numbers about the last image.

    `summary` gives what there is to say about a whole set, once it went by, and `patches` those of the last image.
    """

    upscale: Callable[[np.ndarray], np.ndarray]
    extras: Callable[[], Mapping[str, float]] | None = None
    summary: Callable[[], Mapping[str, Any]] | None = None
    patches: Callable[[], Sequence[PatchBits]] | None = None


def float_form(network: Network) -> ImageForm:
    """The float network in torch, 32 bits everywhere."""
    upscale = torch_upscaler(network.module, network.value_range, network.scale, network.valid_size)
    return ImageForm(upscale, lambda: {"fab": float(FLOAT_BITS)})


class BitMeter:
    """Runs a quantized network in torch and notes the bits that every layer took."""

    def __init__(self, quantized: QuantizedNetwork, network: Network) -> None:
        self._quantized = quantized
        self._upscale = torch_upscaler(quantized.model, quantized.value_range, network.scale, network.valid_size)
        self._seen: dict[str, list[float]] = {name: [] for name in quantized.layers}
        self._fabs: list[float] = []

    @property
    def quantized(self) -> QuantizedNetwork:
        """The network that it watches."""
        return self._quantized

    def form(self) -> ImageForm:
        """This network as one row of the table."""
        return ImageForm(self.upscale, lambda: {"fab": self.last_fab()})

    def upscale(self, low: np.ndarray) -> np.ndarray:
        """One image; its bits are remembered."""
        with record_bits() as ledger:
            output = self._upscale(low)
        self.note(ledger)
        return output

    @torch.no_grad()
    def watch(self, batch: Tensor | Sequence[Tensor]) -> None:
        """The bits of a batch of inputs, where there is no image to measure on."""
        device = next(self._quantized.model.parameters()).device
        with record_bits() as ledger:
            self._quantized.model(*(tensor.to(device) for tensor in inputs_of(batch)))
        self.note(ledger)

    def note(self, ledger: BitLedger) -> None:
        """Takes in the bits of one more forward."""
        self._fabs.append(float(ledger.mean(self._quantized.counted()).mean()))
        self._note_layers(ledger)

    def _note_layers(self, ledger: BitLedger) -> None:
        for name, layer in self._quantized.layers.items():
            bits = None if layer.activation is None else ledger.of(layer.activation)
            if bits is not None:
                self._seen[name].append(float(bits.mean()))

    def last_fab(self) -> float:
        """That of the last forward."""
        return self._fabs[-1]

    def forget(self) -> None:
        """Starts anew, as if no image had been seen."""
        self._fabs.clear()
        for seen in self._seen.values():
            seen.clear()

    def fab(self) -> float:
        """The feature average bit-width over everything seen."""
        return sum(self._fabs) / len(self._fabs) if self._fabs else float(FLOAT_BITS)

    @torch.no_grad()
    def bits(self) -> dict[str, tuple[float, float]]:
        """(weight bits, mean activation bits over the images seen) by layer; 32 for what is not quantized."""
        result = {}
        for name, layer in self._quantized.layers.items():
            weight = float(FLOAT_BITS)
            if layer.weight is not None:
                tensor = self._quantized.model.get_submodule(name).weight
                assert isinstance(tensor, torch.Tensor)
                weight = float(layer.weight.qparams(tensor).bit_width.mean())
            seen = self._seen[name]
            result[name] = (weight, sum(seen) / len(seen) if seen else float(FLOAT_BITS))
        return result


def macs_720p(network: Network) -> tuple[tuple[int, int], dict[str, int]]:
    """Height and width of the input that gives 1280x720 pixels, and the float network's MACs on it by layer."""
    height, width = (side // network.scale for side in OUTPUT_720P)
    multiple = network.size_multiple
    height, width = network.valid_size(height // multiple * multiple, width // multiple * multiple)
    return (height, width), count_macs(network.module, (1, network.channels, height, width))


def quantized_operations(macs: Mapping[str, int], quantized: QuantizedNetwork, meter: BitMeter) -> dict[str, float]:
    """Every named count of operations at the bits that the meter has seen.

    CADyQ's formula knows layers with one FAB and float layers; those of 8 static bits, which FAB does not count, come
    into it with their own 8 bits.
    """
    bits = {name: layer for name, layer in meter.bits().items() if name in macs}
    counted = {name: layer for name, layer in bits.items() if quantized.layers[name].counted}
    fixed = {name: layer for name, layer in bits.items() if name not in counted}
    result = ops(macs, bits)
    if counted:
        saved_by_fixed = sum(macs.values()) - cadyq_bitops(macs, fixed)
        result["cadyq_bitops"] = cadyq_bitops(macs, counted, meter.fab()) - saved_by_fixed
    return result


@torch.no_grad()
def layer_errors(
    quantized: QuantizedNetwork,
    network: nn.Module,
    batch: Tensor | Sequence[Tensor],
    seconds: float = math.inf,
    on_layer: Callable[[int], None] = lambda done: None,
) -> tuple[float, dict[str, float]]:
    """The mean squared error of the quantized output against the float network's, and the part that each layer makes.

    A part is what the quantizers of one layer alone change, scaled so that all (those of blocks and attentions together
    are one more) add up to the whole. Where several layers harm as much, the error would hardly be less with one of
    them in float. `quantized` is calibrated, not trained: training makes weights and ranges make up for one another.
    `batch` is what the networks take, images (N,3,H,W) or several tensors, in their range and on their device. Layers
    that are not reached within `seconds` have none; `on_layer(done)` is called after each.
    """
    began = time.monotonic()
    inputs = inputs_of(batch)
    expected = network(*inputs)

    def distance(output: Tensor, other: Tensor) -> float:
        return (output - other).double().square().mean().item()

    whole = distance(quantized.model(*inputs), expected)
    layers, alone = quantized.layers, dict[str, float]()
    set_mode([quantizer for layer in layers.values() for quantizer in layer], Mode.OFF)
    try:
        others = quantized.model(*inputs)
        set_mode(quantized.quantizers(), Mode.OFF)
        nothing = quantized.model(*inputs)
        for name, layer in layers.items():
            if time.monotonic() - began > seconds:
                break
            set_mode(layer, Mode.ON)
            alone[name] = distance(quantized.model(*inputs), nothing)
            set_mode(layer, Mode.OFF)
            on_layer(len(alone))
    finally:
        set_mode(quantized.quantizers(), Mode.ON)
    total = sum(alone.values()) + distance(others, nothing)
    scale = whole / total if total else 0.0
    if len(alone) < len(layers):
        scale = min(scale, 1.0)  # the others make some of it
    return whole, {name: error * scale for name, error in alone.items()}


def costliest(errors: Mapping[str, float], whole: float, share: float) -> list[str]:
    """The fewest layers without whose parts `share` of the whole error is left, costliest first.

    They are at least one and at most half of all.
    """
    chosen: list[str] = []
    left = whole
    for name in sorted(errors, key=lambda name: (-errors[name], name)):
        if chosen and (left <= share * whole or 2 * (len(chosen) + 1) > len(errors) or errors[name] <= 0):
            break
        chosen.append(name)
        left -= errors[name]
    return chosen

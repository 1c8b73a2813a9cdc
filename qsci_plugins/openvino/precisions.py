"""Which arithmetic a compiled network really runs in, read from its execution graph."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

import openvino

from qsci_plugins.openvino.image_only import image_only_in_bf16

__all__ = [
    "LayerPrecision",
    "Precision",
    "allowed",
    "has_bf16",
    "integer_layers",
    "precision_hint",
    "prepared",
    "runtime_precisions",
]

#: of what does not run in integers. "auto" is bf16 where the CPU has it: a quarter to a third faster, and it moved the
#: PSNR of EDSR-8 on Set5 by 0.004 dB or less; "image_only" that in the layers which no choice of bits depends on
Precision = Literal["f32", "bf16", "auto", "image_only"]


_ARITHMETIC = {
    "Convolution",
    "FullyConnected",
    "FullyConnectedQuantized",
    "FullyConnectedQuantizedLegacy",
    "MatMul",
    "GroupConvolution",
    "Deconvolution",
}


class LayerPrecision(NamedTuple):
    """One executed node: `precision` of its inputs (i8, u8, bf16, f32, ...) and `output` of its results."""

    name: str
    type: str
    precision: str
    output: str


def has_bf16(device: str = "CPU") -> bool:
    """Whether a device computes in bf16."""
    return "BF16" in openvino.Core().get_property(device, "OPTIMIZATION_CAPABILITIES")


def precision_hint(wanted: Precision, device: str = "CPU") -> str:
    """The value of OpenVINO's INFERENCE_PRECISION_HINT; "image_only" is in the graph (see `prepared`), which runs in f32."""
    if wanted == "auto":
        return "bf16" if has_bf16(device) else "f32"
    return "f32" if wanted == "image_only" else wanted


def allowed(asked: Precision | None, at_most: Precision) -> Precision:
    """What is asked for, default f32, or the manifest's `at_most` where that is less."""
    if asked is None or asked == "f32":
        return "f32"
    return asked if at_most == "auto" else at_most


def prepared(model: openvino.Model, precision: Precision) -> openvino.Model:
    """The model to compile with the hint of a precision; it is changed in place."""
    if precision == "image_only" and has_bf16():
        image_only_in_bf16(model)
    return model


def runtime_precisions(compiled: openvino.CompiledModel) -> list[LayerPrecision]:
    """Every node that the device executes, in order; constants, inputs and outputs are left out.

    A node that came from a layer of the torch network bears that layer's module name.
    """
    found = []
    for node in compiled.get_runtime_model().get_ordered_ops():
        info = node.get_rt_info()
        told = {
            key: info[key].astype(str) for key in ("layerType", "runtimePrecision", "outputPrecisions") if key in info
        }
        kind = told.get("layerType", "")
        if kind in ("Const", "Input", "Output"):
            continue
        name = _module_name(node.get_friendly_name())
        found.append(LayerPrecision(name, kind, told.get("runtimePrecision", ""), told.get("outputPrecisions", "")))
    return found


def integer_layers(compiled: openvino.CompiledModel) -> dict[str, bool]:
    """Whether each convolution, linear layer or matrix product runs on 8-bit integers, by name."""
    return {
        layer.name: layer.precision in ("u8", "i8")
        for layer in runtime_precisions(compiled)
        if layer.type in _ARITHMETIC
    }


def _module_name(friendly: str) -> str:
    """`body.0.body.2/Convolution` (packed) and `__module.body.0.body.2/aten::...` (fresh) are layer `body.0.body.2`."""
    friendly = friendly.removesuffix("/DequantizationMultiply")
    packed = friendly.removesuffix("/Convolution").removesuffix("/MatMul")
    if packed != friendly and "/" not in packed:
        return packed
    traced = re.fullmatch(r"__module\.(.*?)/aten::(_convolution|linear)/(Convolution|MatMul)", friendly)
    return traced[1] if traced else friendly

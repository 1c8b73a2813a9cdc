"""Which arithmetic a graph is computed in: what is asked for, what it is changed to for that, and what really ran."""

from __future__ import annotations

import re
from functools import cache
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import openvino
from openvino import Type
from openvino import opset13 as ops

from qsci_plugins.errors import UserError

__all__ = [
    "LayerPrecision",
    "Precision",
    "allowed",
    "compute_saturating_in_f32",
    "cpu_saturates",
    "has_bf16",
    "image_only_in_bf16",
    "precision_hint",
    "prepared",
    "runtime_precisions",
]

#: of what does not run in integers. "auto" is bf16 where the CPU has it: a quarter to a third faster, and it moved the
#: PSNR of EDSR-8 on Set5 by 0.004 dB or less; "image_only" that in the layers which no choice of bits depends on
Precision = Literal["f32", "bf16", "auto", "image_only"]


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
    """What is asked for, default f32, or the manifest's `at_most` where that is less. Raises UserError for another word."""
    if asked is not None and asked not in get_args(Precision):
        raise UserError(f"there is no precision {asked!r}; known: {', '.join(get_args(Precision))}")
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
        runtime_info = {
            key: info[key].astype(str) for key in ("layerType", "runtimePrecision", "outputPrecisions") if key in info
        }
        kind = runtime_info.get("layerType", "")
        if kind in ("Const", "Input", "Output"):
            continue
        name = _module_name(node.get_friendly_name())
        found.append(
            LayerPrecision(
                name, kind, runtime_info.get("runtimePrecision", ""), runtime_info.get("outputPrecisions", "")
            )
        )
    return found


def _module_name(friendly: str) -> str:
    """`body.0.body.2/Convolution` (packed) and `__module.body.0.body.2/aten::...` (fresh) are layer `body.0.body.2`."""
    friendly = friendly.removesuffix("/DequantizationMultiply")
    packed = friendly.removesuffix("/Convolution").removesuffix("/MatMul")
    if packed != friendly and "/" not in packed:
        return packed
    traced = re.fullmatch(r"__module\.(.*?)/aten::(_convolution|linear)/(Convolution|MatMul)", friendly)
    return traced[1] if traced else friendly


_LAYERS = ("Convolution", "ConvolutionBackpropData", "GroupConvolution", "MatMul")


def image_only_in_bf16(model: openvino.Model) -> int:
    """Puts float layers that nothing but the first output depends on between conversions to bf16; returns how many.

    The further outputs are the bits that the graph chose: what they depend on stays as it is, so that it chooses the
    same ones. The plugin's own bf16 would convert the features before every choice and back after it, which costs more
    than it saves. To be compiled with the hint f32.
    """
    deciding = _needed_by(model.outputs[1:])
    changed = 0
    for layer in model.get_ordered_ops():
        if layer.get_type_name() not in _LAYERS or layer.get_friendly_name() in deciding:
            continue
        if layer.input_value(1).get_node().get_type_name() != "Constant":  # INT8 weights come through a conversion
            continue
        readers = layer.output(0).get_target_inputs()
        for port in layer.inputs():
            port.replace_source_output(ops.convert(port.get_source_output(), Type.bf16).output(0))
        layer.validate_and_infer_types()
        result = ops.convert(layer.output(0), Type.f32).output(0)
        for reader in readers:
            reader.replace_source_output(result)
        changed += 1
    model.validate_nodes_and_infer_types()
    return changed


def _needed_by(outputs: list[openvino.Output]) -> set[str]:
    """The names of all nodes that outputs depend on."""
    found: set[str] = set()
    waiting = [output.get_node() for output in outputs]
    while waiting:
        node = waiting.pop()
        name = node.get_friendly_name()
        if name not in found:
            found.add(name)
            waiting += [value.get_node() for value in node.input_values()]
    return found


#: of what is rounded to INT8
_LEVELS = 256
#: what leaves values as they are
_MOVING = ("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Gather", "Slice", "StridedSlice", "VariadicSplit")


@cache
def cpu_saturates() -> bool:
    """Whether OpenVINO adds up two products of u8 and i8 in 16 bits on this CPU; asked of a product of two matrices."""
    left, right = ops.parameter([1, 1, 2, 64], np.float32), ops.parameter([1, 1, 64, 2], np.float32)
    rounded = [
        ops.fake_quantize(x, *(np.float32(bound) for bound in bounds * 2), _LEVELS)
        for x, bounds in ((left, (0, 255)), (right, (-128, 127)))
    ]
    model = openvino.Model([ops.matmul(*rounded, False, False)], [left, right])
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    product = compiled([np.full((1, 1, 2, 64), 255, np.float32), np.full((1, 1, 64, 2), 127, np.float32)])[0]
    return bool((product != 64 * 255 * 127).any())


def compute_saturating_in_f32(model: openvino.Model) -> int:
    """On a CPU whose INT8 saturates, has f32 compute what may; returns how many products. The model is changed in place.

    These are products of two activations, in attention, which take longer in INT8 there besides (EfficientSCI-T 1.5 times
    as long), and grouped 3-d convolutions of signed levels, whose kernel halves the weights. Weights elsewhere are limited
    in calibration and export.
    """
    found = [operands for node in model.get_ordered_ops() if (operands := _operands(node))]
    if not found or not cpu_saturates():
        return 0
    for rounding in {node.get_friendly_name(): node for operands in found for node in operands}.values():
        _round_in_float(rounding)
    model.validate_nodes_and_infer_types()
    return len(found)


def _operands(node: Any) -> list[Any]:
    """The roundings to INT8 of what a product that may saturate multiplies; empty for every other node."""
    kind = node.get_type_name()
    if kind == "MatMul":
        left, right = (_rounding(node.input_value(i).get_node()) for i in range(2))
        return [left, right] if left and right else []
    if kind == "GroupConvolution" and len(node.get_output_partial_shape(0)) == 5:
        x = _rounding(node.input_value(0).get_node())
        return [x] if x and _range(x, 3)[0].min() < 0 else []
    return []


def _rounding(node: Any) -> Any:
    """The FakeQuantize to INT8 that a tensor comes from, by whatever moves its values; None for any other."""
    while node.get_type_name() in _MOVING:
        node = node.input_value(0).get_node()
    if node.get_type_name() != "FakeQuantize" or node.get_attributes()["levels"] != _LEVELS:
        return None
    constant = all(node.input_value(i).get_node().get_type_name() == "Constant" for i in range(1, 5))
    return node if constant else None


def _range(node: Any, port: int) -> tuple[np.ndarray, np.ndarray]:
    """The least value and the step between values at a FakeQuantize's ports `port` and the next."""
    least, greatest = (node.input_value(i).get_node().get_data().astype(np.float64) for i in (port, port + 1))
    return least, (greatest - least) / (_LEVELS - 1)


def _round_in_float(node: Any) -> None:
    """The same levels and one more that nothing takes, of which OpenVINO makes no integers."""
    x = ops.minimum(node.input_value(0), node.input_value(2))
    bounds = []
    for port in (1, 3):
        least, step = _range(node, port)
        bounds += [least.astype(np.float32), (least + step * _LEVELS).astype(np.float32)]
    rounded = ops.fake_quantize(x, *bounds, _LEVELS + 1)
    rounded.set_friendly_name(node.get_friendly_name())
    node.output(0).replace(rounded.output(0))

"""Changes to exported ONNX graphs that make every runtime compute what torch does."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

__all__ = ["define_quant", "separate_biases"]

_DOMAIN = "qonnx.custom_op.general"
_BODY_OPSET = 18


def separate_biases(model: onnx.ModelProto) -> onnx.ModelProto:
    """Adds biases behind the convolutions instead of in them, in place.

    onnxruntime would round a bias inside to a multiple of input scale * weight scale, which is coarse at few bits;
    behind, it stays what it is, and OpenVINO puts it back by itself.
    """
    initializers = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        nodes.append(node)
        if node.op_type != "Conv" or len(node.input) < 3:
            continue
        bias = numpy_helper.to_array(initializers[node.input.pop()])
        kernel = next(helper.get_attribute_value(a) for a in node.attribute if a.name == "kernel_shape")
        output, bare = node.output[0], f"{node.output[0]}_without_bias"
        name = f"{output}_bias"
        shaped = bias.reshape(1, -1, *[1] * len(kernel)).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(shaped, name))
        node.output[0] = bare
        nodes.append(helper.make_node("Add", [bare, name], [output], name=f"{node.name}_bias"))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    used = {name for node in model.graph.node for name in node.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    return model


def define_quant(model: onnx.ModelProto) -> onnx.ModelProto:
    """Adds the operator's definition to a model, as a local function; the `Quant` nodes stay what they are.

    y = (clip(round(x / scale + zero_point), min, max) - zero_point) * scale, with the range of a signed or unsigned,
    narrow or full integer of `bit_width` bits.
    """

    def node(kind: str, inputs: list[str], output: str) -> onnx.NodeProto:
        return helper.make_node(kind, inputs, [output])

    def number(value: float, output: str) -> onnx.NodeProto:
        return helper.make_node("Constant", [], [output], value_float=value)

    def attribute(name: str) -> list[onnx.NodeProto]:
        constant = helper.make_node("Constant", [], [f"{name}_int"])
        reference = onnx.AttributeProto(name="value_int", ref_attr_name=name, type=onnx.AttributeProto.INT)
        constant.attribute.append(reference)
        return [constant, helper.make_node("Cast", [f"{name}_int"], [name], to=onnx.TensorProto.FLOAT)]

    nodes = [
        *attribute("signed"),
        *attribute("narrow"),
        number(1.0, "one"),
        number(2.0, "two"),
        node("Sub", ["bit_width", "signed"], "magnitude_bits"),
        node("Pow", ["two", "magnitude_bits"], "count"),
        # signed: 2^(b-1) - 1; unsigned: 2^b - 1, one less where the range is narrow
        node("Sub", ["one", "signed"], "unsigned"),
        node("Mul", ["unsigned", "narrow"], "spared"),
        node("Sub", ["count", "one"], "full"),
        node("Sub", ["full", "spared"], "high"),
        # signed: -2^(b-1), one more where the range is narrow; unsigned: 0
        node("Sub", ["narrow", "count"], "negative"),
        node("Mul", ["negative", "signed"], "low"),
        node("Div", ["x", "scale"], "steps"),
        node("Add", ["steps", "zero_point"], "shifted"),
        node("Round", ["shifted"], "rounded"),
        node("Max", ["rounded", "low"], "bounded"),
        node("Min", ["bounded", "high"], "integer"),
        node("Sub", ["integer", "zero_point"], "centred"),
        node("Mul", ["centred", "scale"], "y"),
    ]
    model.functions.append(
        helper.make_function(
            _DOMAIN,
            "Quant",
            ["x", "scale", "zero_point", "bit_width"],
            ["y"],
            nodes,
            [helper.make_opsetid("", _BODY_OPSET)],
            ["signed", "narrow", "rounding_mode"],
        )
    )
    if not any(entry.domain == _DOMAIN for entry in model.opset_import):
        model.opset_import.append(helper.make_opsetid(_DOMAIN, 2))
    return model

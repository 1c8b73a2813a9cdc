"""bf16 for a part of a graph: the layers that lead to the image alone, where the rest chooses its own bits in f32."""

from __future__ import annotations

import openvino
from openvino import Type
from openvino import opset13 as ops

__all__ = ["image_only_in_bf16"]

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

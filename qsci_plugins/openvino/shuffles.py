"""Two exact rewrites around pixel shuffles, which otherwise take as long as eight INT8 convolutions.

A quantizer behind a pixel shuffle moves in front of it, so that the convolution writes integers and integers are moved.
And the convolution's output channels are sorted so that the shuffle copies whole pixels: in the channels-last memory of
the CPU plugin that is a quarter of the time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import openvino
from numpy.typing import NDArray
from openvino import opset13 as ops

__all__ = ["Shuffle", "find_shuffles", "hoist_quantizers", "only_consumer", "pixel_shuffles_as_copies", "sort_channels"]

#: what works on every element alone, and so commutes with moving elements about
_ELEMENTWISE = {"Clamp", "Relu", "FakeQuantize"}


@dataclass
class Shuffle:
    """A pixel shuffle as torch's conversion leaves it: reshape, transpose, reshape."""

    first: openvino.Node
    last: openvino.Node
    factor: int

    @property
    def source(self) -> openvino.Output:
        return self.first.input_value(0)


def hoist_quantizers(model: openvino.Model) -> int:
    """Moves each FakeQuantize with one range per tensor before the pixel shuffle it follows; returns how many."""
    moved = 0
    for shuffle in find_shuffles(model):
        chain: list[openvino.Node] = []
        value = shuffle.last.output(0)
        while (node := only_consumer(value)) is not None and _is_scalar_elementwise(node):
            chain.append(node)
            value = node.output(0)
        while chain and chain[-1].get_type_name() != "FakeQuantize":
            chain.pop()
        if not chain or only_consumer(shuffle.source) is None:
            continue
        end = chain[-1].output(0)
        consumers = list(end.get_target_inputs())
        chain[0].input(0).replace_source_output(shuffle.source)
        shuffle.first.input(0).replace_source_output(end)
        for consumer in consumers:
            consumer.replace_source_output(shuffle.last.output(0))
        moved += 1
    model.validate_nodes_and_infer_types()
    return moved


def pixel_shuffles_as_copies(model: openvino.Model) -> int:
    """Sorts output channels of convolutions in front of pixel shuffles by position instead of by channel.

    Returns how many shuffles were rewritten; one whose convolution is not found stays as it is.
    """
    rewritten = 0
    for shuffle in find_shuffles(model):
        total = shuffle.source.get_shape()[1]
        if not sort_channels(shuffle.source, np.arange(total).reshape(-1, shuffle.factor**2).T.reshape(-1)):
            continue
        copies = ops.depth_to_space(shuffle.source, "blocks_first", shuffle.factor)
        copies.set_friendly_name(shuffle.last.get_friendly_name())
        for consumer in list(shuffle.last.output(0).get_target_inputs()):
            consumer.replace_source_output(copies.output(0))
        rewritten += 1
    model.validate_nodes_and_infer_types()
    return rewritten


def find_shuffles(model: openvino.Model) -> list[Shuffle]:
    found = []
    for node in model.get_ordered_ops():
        if node.get_type_name() != "Transpose" or not node.input_value(0).get_partial_shape().is_static:
            continue
        first, order = node.input_value(0).get_node(), node.input_value(1).get_node()
        last = only_consumer(node.output(0))
        if first.get_type_name() != "Reshape" or last is None or last.get_type_name() != "Reshape":
            continue
        if order.get_type_name() != "Constant" or order.data.tolist() != [0, 1, 4, 2, 5, 3]:
            continue
        batch, channels, rows, columns, height, width = first.output(0).get_shape()
        whole = [batch, channels, rows * height, columns * width]
        if rows == columns and list(last.output(0).get_shape()) == whole and only_consumer(first.output(0)) is not None:
            found.append(Shuffle(first, last, rows))
    return found


def sort_channels(value: openvino.Output, order: NDArray[np.int64]) -> bool:
    """Gives the convolution that made a value (N,C,...) its output channels in another order, which nothing else sees.

    False where something else than a convolution and elementwise arithmetic with constants stands in the way.
    """
    constants = _channel_constants(value, len(order))
    for node, port, axis in constants or ():
        constant = node.input_value(port).get_node()
        data = np.take(constant.data, order, axis)
        sorted_ = ops.constant(data, dtype=constant.get_element_type(), name=constant.get_friendly_name())
        node.input(port).replace_source_output(sorted_.output(0))
    return constants is not None


def only_consumer(value: openvino.Output) -> openvino.Node | None:
    """The single node that uses a value (those that ask for its shape aside, which nothing here changes)."""
    nodes = [target.get_node() for target in value.get_target_inputs()]
    nodes = [node for node in nodes if node.get_type_name() != "ShapeOf"]
    return nodes[0] if len(nodes) == 1 else None


def _is_scalar_elementwise(node: openvino.Node) -> bool:
    if node.get_type_name() not in _ELEMENTWISE:
        return False
    constants = [node.input_value(port) for port in range(1, node.get_input_size())]
    return all(c.get_node().get_type_name() == "Constant" and _size(c) == 1 for c in constants)


def _channel_constants(value: openvino.Output, total: int) -> list[tuple[openvino.Node, int, int]] | None:
    """Every constant (node, input port, axis) with one value per output channel, up to the convolution that made it.

    None where something else than a convolution and elementwise arithmetic with constants stands in the way.
    """
    found: list[tuple[openvino.Node, int, int]] = []
    while True:
        node = value.get_node()
        if only_consumer(value) is None:
            return None
        if node.get_type_name() == "Convolution":
            weights = _weight_constants(node, total)
            return None if weights is None else found + weights
        if node.get_type_name() in ("Add", "Multiply"):
            other = node.input_value(1)
            if other.get_node().get_type_name() != "Constant":
                return None
            if _size(other) > 1:
                shape = list(other.get_shape())
                if shape != [1, total, *[1] * (len(shape) - 2)]:
                    return None
                found.append((node, 1, 1))
        elif not _is_scalar_elementwise(node):
            return None
        value = node.input_value(0)


def _weight_constants(convolution: openvino.Node, total: int) -> list[tuple[openvino.Node, int, int]] | None:
    found: list[tuple[openvino.Node, int, int]] = []
    queue: list[tuple[openvino.Node, int]] = [(convolution, 1)]
    while queue:
        node, port = queue.pop()
        source = node.input_value(port).get_node()
        kind = source.get_type_name()
        if kind == "Constant":
            shape = list(source.output(0).get_shape())
            if shape and shape[0] == total:
                found.append((node, port, 0))
            elif _size(source.output(0)) != 1:
                return None
        elif kind in ("Convert", "Multiply"):
            if only_consumer(source.output(0)) is None:
                return None
            queue += [(source, index) for index in range(source.get_input_size())]
        else:
            return None
    return found


def _size(value: openvino.Output) -> int:
    return int(np.prod(value.get_shape(), dtype=int))

"""Products of activations that a CPU without VNNI would saturate, computed in f32 there."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np
import openvino
from openvino import opset13 as ops

__all__ = ["compute_saturating_in_f32", "cpu_saturates"]

#: the largest sum of two products of u8 and i8 that such a CPU holds
_MOST = 32767
#: of what is rounded to INT8, and the next number, which OpenVINO rounds to in float
_LEVELS = 256
#: what leaves values as they are
_MOVING = ("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Concat", "Gather", "Slice", "StridedSlice", "VariadicSplit")


class _Rounded(NamedTuple):
    """A FakeQuantize of 256 levels from `first` on, of which `low`..`high` are taken, in steps."""

    node: Any
    first: int
    low: int
    high: int

    @property
    def reach(self) -> int:
        """The largest level as u8."""
        return self.high - self.first

    @property
    def magnitude(self) -> int:
        """The largest level as i8."""
        return max(abs(self.low), abs(self.high))


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
    """Has f32 compute the products that this CPU would saturate; returns how many. The model is changed in place.

    Those of two activations, in attention, whose levels are large enough for that, and grouped 3-d convolutions of signed
    levels, whose kernel without VNNI halves the weights. Weights elsewhere are limited in calibration and export.
    """
    changed: dict[str, _Rounded] = {}
    products = 0
    for node in model.get_ordered_ops():
        operands = _operands(node)
        if operands:
            products += 1
            changed.update({operand.node.get_friendly_name(): operand for operand in operands})
    if not changed or not cpu_saturates():
        return 0
    for operand in changed.values():
        _round_in_float(operand.node)
    model.validate_nodes_and_infer_types()
    return products


def _operands(node: Any) -> list[_Rounded]:
    """What a product that may saturate multiplies; empty for every other node."""
    kind = node.get_type_name()
    if kind == "MatMul":
        left, right = (_rounded(node.input_value(i).get_node()) for i in range(2))
        if left and right and 2 * left.reach * right.magnitude > _MOST:
            return [left, right]
    elif kind == "GroupConvolution" and len(node.get_output_partial_shape(0)) == 5:
        x = _rounded(node.input_value(0).get_node())
        if x and x.first < 0:
            return [x]
    return []


def _rounded(node: Any) -> _Rounded | None:
    """The rounding to INT8 that a tensor comes from, by whatever moves its values."""
    while node.get_type_name() in _MOVING:
        node = node.input_value(0).get_node()
    if node.get_type_name() != "FakeQuantize" or node.get_attributes()["levels"] != _LEVELS:
        return None
    if any(node.input_value(i).get_node().get_type_name() != "Constant" for i in range(1, 5)):
        return None
    # of its results, as OpenVINO moves a shift of heads ahead of it into what it reads
    least, step = _range(node, 3)
    first = round(float((least / step).min()))
    low, high = first, first + _LEVELS - 1
    before = node.input_value(0).get_node()
    if before.get_type_name() == "Clamp":
        limits = before.get_attributes()
        low, high = max(low, round(limits["min"] / step.max())), min(high, round(limits["max"] / step.min()))
    return _Rounded(node, first, low, high)


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

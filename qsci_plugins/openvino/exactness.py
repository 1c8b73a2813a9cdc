"""Whether a lowered network computes the same integers on a CPU without VNNI, where pairs of products can saturate."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from qsci_plugins.openvino.attention import Operand
from qsci_plugins.openvino.grids import Grid
from qsci_plugins.openvino.layers import DynamicLayer, IntegerWeight, StaticLayer
from qsci_plugins.schemes.attention import AttentionQuantizers
from qsci_plugins.schemes.saturation import highest_level, largest_pair_sums, saturating

__all__ = ["grid_reach", "is_exact_everywhere", "limit_pairs"]


def grid_reach(grid: Grid) -> float:
    """The largest level of a grid's INT8 parts, as u8."""
    if grid.unsigned:
        return float(grid.high)
    return 128.0 + min(grid.high, 127)


def limit_pairs(weight: nn.Module, reach: float) -> nn.Module:
    """The weight; output channels whose pairs would saturate with activations up to `reach` at half the resolution.

    Schemes see to that in calibration. What is left are networks saved before they did, and the few channels that
    training moved.
    """
    if not isinstance(weight, IntegerWeight):
        return weight
    integers = weight.integers.float()
    over = saturating(integers, reach).reshape(-1, *[1] * (integers.dim() - 1))
    if not bool(over.any()):
        return weight
    halved = torch.where(over, (integers / 2).round(), integers).to(torch.int8)
    return IntegerWeight(halved, torch.where(over, 2 * weight.step, weight.step))


def is_exact_everywhere(lowered: nn.Module) -> bool:
    """Whether no layer and no attention product can saturate."""
    for module in lowered.modules():
        if isinstance(module, StaticLayer | DynamicLayer) and not _layer_is_exact(module):
            return False
        if isinstance(module, AttentionQuantizers) and not _attention_is_exact(module):
            return False
    return True


def _layer_is_exact(layer: StaticLayer | DynamicLayer) -> bool:
    if not isinstance(layer.weight, IntegerWeight):
        return True
    integers = layer.weight.integers.float()
    if isinstance(layer, DynamicLayer):
        unsigned = layer.bounds[0] == 0
        reach: Tensor | float = highest_level(layer.quantizer, torch.zeros(1, *[8] * (integers.dim() - 1)))
    elif layer.grid is None:
        return True
    else:
        unsigned = layer.grid.unsigned
        reach = torch.full(integers.shape[1:2], grid_reach(layer.grid))
        if layer.ones:
            reach[-layer.ones :] = 1.0 if unsigned else 129.0
        reach = reach.reshape(-1, *[1] * (integers.dim() - 2))
    if isinstance(layer.layer, nn.Conv3d) and layer.layer.groups > 1 and not unsigned:
        return False  # its kernel for i8 activations halves the weights, and loses their last bit
    return not bool((largest_pair_sums(integers * reach) > 32767).any())


def _attention_is_exact(attention: AttentionQuantizers) -> bool:
    products = ((attention.query.quantizer, attention.key.quantizer), (attention.map, attention.value))
    for left, right in products:
        if not isinstance(left, Operand) or not isinstance(right, Operand):
            return False
        largest = max(abs(right.grid.low), abs(right.grid.high))
        if 2 * largest * grid_reach(left.grid) > 32767:
            return False
    return True

"""Operations and parameters of a quantized video network as Q-SCI's table counts them (ECCV 2024, table 1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from qsci_plugins.evaluation.complexity import FLOAT_BITS, Bits, count_macs, qsci_ops
from qsci_plugins.schemes.shortcuts import WithShortcut, add_shortcuts

__all__ = ["PublishedCost", "count_activations", "product_bits", "published_cost"]

#: of the branches beside low-bit layers, whatever those have
_SHORTCUT_BITS = 8.0
_ACTIVATIONS = (nn.LeakyReLU, nn.ReLU, nn.PReLU, nn.GELU, nn.SiLU)


@dataclass(frozen=True)
class PublishedCost:
    """`macs` are the multiply-accumulates of the float network with those of its attention's products.

    `ops` are priced by bits, with an operation for every value that goes through an activation: with these EfficientSCI-S
    comes to its published 563.87 G. `parameters` are counted as float32 ones that take as much memory.
    """

    macs: float
    ops: float
    parameters: float


def published_cost(
    stock: nn.Module, shapes: Sequence[Sequence[int]], bits: float, shortcuts: Sequence[str] = ()
) -> PublishedCost:
    """The cost of a float network when everything in it is quantized to `bits`; 32 leaves it in float.

    `shapes` are those of its inputs. `shortcuts` name the convolutions that get an 8-bit branch (FEM and VRM; see
    `schemes.shortcuts`): below 8 bits Q-SCI has them. Activations in the branches are free, as in the table.
    """
    macs = count_macs(stock, *shapes)
    macs["activations"] = sum(count_activations(stock, *shapes).values())
    widths = {name: (bits, bits) for name in macs}
    parameters = sum(parameter.numel() for parameter in stock.parameters()) * bits / FLOAT_BITS
    products = sum(macs.values()) - macs["activations"]
    if shortcuts:
        changed = add_shortcuts(stock, shortcuts)
        for name, count in count_macs(changed, *shapes).items():
            if name.endswith(".shortcut"):
                macs[name], widths[name] = count, (_SHORTCUT_BITS, _SHORTCUT_BITS)
        for module in changed.modules():
            if isinstance(module, WithShortcut):
                parameters += (
                    sum(parameter.numel() for parameter in module.shortcut.parameters()) * _SHORTCUT_BITS / FLOAT_BITS
                )
    return PublishedCost(products, qsci_ops(macs, widths), parameters)


def product_bits(macs: Mapping[str, int], bits: Bits) -> dict[str, tuple[float, float]]:
    """`bits` with the products of attention, `<owner>/matmul_<i>`, at the widest activation of the owner's layers.

    Q-SCI quantizes q, k, v and the attention map as it does the layers around them. Products of owners without a
    quantized layer stay in float.
    """
    extended = dict(bits)
    for name in macs:
        owner, slash, _ = name.partition("/matmul_")
        widths = [activation for layer, (_, activation) in bits.items() if layer.startswith(f"{owner}.")]
        if slash and widths:
            extended[name] = (max(widths), max(widths))
    return extended


def count_activations(model: nn.Module, *input_shapes: Sequence[int]) -> dict[str, int]:
    """How many values go through each activation module in one pass on inputs of these shapes, which costs no memory."""
    counts: dict[str, int] = {}
    hooks = []
    for name, module in model.named_modules():
        if isinstance(module, _ACTIVATIONS):

            def count(_: nn.Module, __: tuple[Tensor, ...], output: Tensor, name: str = name) -> None:
                counts[name] = counts.get(name, 0) + output.numel()

            hooks.append(module.register_forward_hook(count))
    try:
        with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True):
            model(*(torch.empty(tuple(shape)) for shape in input_shapes))
    finally:
        for hook in hooks:
            hook.remove()
    return counts

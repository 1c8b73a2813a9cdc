"""Which quantizers go where in a network: what a scheme decides and a backend carries out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from qsci_plugins.schemes.attention import AttentionQuantizers
from qsci_plugins.schemes.quantizer import Quantizer

__all__ = ["LayerQuantizers", "Plan", "attach_block"]

#: the name under which a residual block holds the quantizer of its input
CHILD = "qsci_input"


@dataclass
class LayerQuantizers:
    """The quantizers of one layer: of its input, its weight and, where a scheme asks for it, its output."""

    activation: Quantizer | None
    weight: Quantizer | None
    output: Quantizer | None = None
    #: whether FAB counts the activation (8-bit head and tail are not counted, in the papers)
    counted: bool = True

    def __iter__(self) -> Iterator[Quantizer]:
        return (q for q in (self.activation, self.weight, self.output) if q is not None)


@dataclass
class Plan:
    """All quantizers of a network, by the stock network's module names.

    `layers`: convolutions and linear layers. `blocks`: residual blocks whose input is quantized once per forward, for
    the branch and the skip alike; the layers that read it have no activation quantizer of their own. `attentions`:
    modules whose matrix products are quantized.
    """

    layers: dict[str, LayerQuantizers]
    blocks: dict[str, Quantizer] = field(default_factory=dict)
    attentions: dict[str, AttentionQuantizers] = field(default_factory=dict)


def attach_block(module: nn.Module, quantizer: Quantizer) -> None:
    """Quantizes the first input of a module before it runs; the quantizer becomes its child `qsci_input`."""
    module.add_module(CHILD, quantizer)
    module.register_forward_pre_hook(_quantize_input)


def _quantize_input(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    return (getattr(module, CHILD)(args[0]), *args[1:])

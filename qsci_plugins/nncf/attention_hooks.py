"""Quantized operands of F.scaled_dot_product_attention, whose softmax map no hook of NNCF can reach.

The operands are noted on their way in, and the result is computed again, step by step and quantized. The call itself
gets one token only, so that it costs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

from nncf.torch.layer_utils import StatefulModuleInterface
from torch import Tensor, nn
from torch.overrides import handle_torch_function, has_torch_function

from qsci_plugins.schemes.attention import AttentionQuantizers, attend
from qsci_plugins.schemes.registry import describe, rebuild

__all__ = ["FusedAttentionHook", "OperandHook", "note_operand", "operand_names", "take_operands"]

#: the parameters of F.scaled_dot_product_attention that may be given by position
_POSITIONAL = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")

_OPERANDS: ContextVar[Mapping[str, Mapping[str, Any]]] = ContextVar("qsci_operands", default={})  # noqa: B039


def operand_names(names: list[str]) -> list[str]:
    """The parameter of every port of a call, from the names of those that it gave by name ("" for the others)."""
    return [name or _POSITIONAL[port] for port, name in enumerate(names)]


def note_operand(layer: str, parameter: str, value: Any) -> None:
    """Keeps an argument of the call under way in a layer."""
    operands = _OPERANDS.get()
    _OPERANDS.set({**operands, layer: {**operands.get(layer, {}), parameter: value}})


def take_operands(layer: str) -> dict[str, Any]:
    """The arguments of the call that just returned in a layer."""
    operands = dict(_OPERANDS.get())
    taken = dict(operands.pop(layer))
    _OPERANDS.set(operands)
    return taken


class OperandHook(nn.Module, StatefulModuleInterface):
    """Notes one argument, and hands on its first token."""

    def __init__(self, layer: str, parameter: str) -> None:
        super().__init__()
        self.layer = layer
        self.parameter = parameter

    def forward(self, value: Any) -> Any:
        note_operand(self.layer, self.parameter, value)
        if not isinstance(value, Tensor):
            return value
        return value[..., :1, :1] if self.parameter == "attn_mask" else value[..., :1, :]

    def get_config(self) -> dict[str, Any]:
        return {"layer": self.layer, "parameter": self.parameter}

    @classmethod
    def from_config(cls, state: Mapping[str, Any]) -> OperandHook:
        return cls(str(state["layer"]), str(state["parameter"]))


class FusedAttentionHook(nn.Module, StatefulModuleInterface):
    """Replaces the call's result by that of the quantized operands."""

    def __init__(self, quantizers: AttentionQuantizers, layer: str) -> None:
        super().__init__()
        self.quantizers = quantizers
        self.layer = layer

    def forward(self, output: Tensor) -> Tensor:
        operands = take_operands(self.layer)
        query, key, value = (operands.pop(name) for name in _POSITIONAL[:3])

        def asymmetric_quantize(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            return attend(self.quantizers, query, key, value, **operands)

        if has_torch_function((query, key, value)):
            return handle_torch_function(asymmetric_quantize, (query, key, value), query, key, value)
        return asymmetric_quantize(query, key, value)

    def get_config(self) -> dict[str, Any]:
        return {"layer": self.layer, "quantizers": describe(self.quantizers)}

    @classmethod
    def from_config(cls, state: Mapping[str, Any]) -> FusedAttentionHook:
        quantizers = rebuild(state["quantizers"])
        assert isinstance(quantizers, AttentionQuantizers)
        return cls(quantizers, str(state["layer"]))

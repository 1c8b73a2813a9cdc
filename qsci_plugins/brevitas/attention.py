"""Shifted queries and keys in Brevitas: inside a stock attention, or as a layer for attentions of one's own."""

from __future__ import annotations

from typing import Any

import brevitas.nn as qnn
import torch
from torch import Tensor, nn

from qsci_plugins.brevitas.quantizers import SchemeActQuant
from qsci_plugins.brevitas.tensor_quant import Keeping
from qsci_plugins.schemes.attention import AttentionQuantizers, ShiftedQuantizer
from qsci_plugins.schemes.lsq import LearnedStepActivation
from qsci_plugins.schemes.quantizer import Mode, Quantizer

__all__ = ["ProxiedAttention", "ShiftedScaledDotProductAttention", "identity_of"]


class Shift(Keeping):
    """x / scale + shift, what stands ahead of a shifted quantizer; no shift while its quantizer is OFF."""

    def __init__(self, shifted: ShiftedQuantizer) -> None:
        super().__init__()
        self.scale = shifted.scale
        self.shift = shifted.shift
        # in a list, as it belongs to the proxy and must not be saved twice
        self._quantizer = [shifted.quantizer]

    def forward(self, x: Tensor) -> Tensor:
        if self.scale != 1.0:
            x = x / self.scale
        return x if self.shift is None or self._quantizer[0].mode is Mode.OFF else x + self.shift


class ProxiedAttention(nn.Module):
    """AttentionQuantizers behind Brevitas proxies: calibrated, switched off and exported as all quantizers are."""

    def __init__(self, quantizers: AttentionQuantizers) -> None:
        super().__init__()
        self.scores = quantizers.scores
        self.context = quantizers.context
        self.fused = quantizers.fused
        self.query_scale = quantizers.query.scale
        self.key_scale = quantizers.key.scale
        self.query_quant = identity_of(quantizers.query.quantizer, Shift(quantizers.query))
        self.key_quant = identity_of(quantizers.key.quantizer, Shift(quantizers.key))
        self.value_quant = identity_of(quantizers.value)
        self.map_quant = identity_of(quantizers.map)

    def query(self, x: Tensor) -> Tensor:
        return _scaled(self.query_quant(x), self.query_scale)

    def key(self, x: Tensor) -> Tensor:
        return _scaled(self.key_quant(x), self.key_scale)

    def value(self, x: Tensor) -> Tensor:
        return self.value_quant(x)

    def map(self, x: Tensor) -> Tensor:
        return self.map_quant(x)

    def quantizers(self) -> AttentionQuantizers:
        """The same quantizers and shifts as a scheme knows them, sharing every parameter."""
        return AttentionQuantizers(
            _shifted(self.query_quant, self.query_scale),
            _shifted(self.key_quant, self.key_scale),
            self.value_quant.act_quant.quantizer,
            self.map_quant.act_quant.quantizer,
            scores=self.scores,
            context=self.context,
            fused=self.fused,
        )


class ShiftedScaledDotProductAttention(qnn.QuantScaledDotProductAttention):
    """scaled_dot_product_attention with Q-SCI's quantizers; takes (..., heads, tokens, d), returns the same shape.

    `bits` of all operands and the softmax map; one learned shift for each of `heads`, of queries and keys. `key_heads`
    where they are fewer (grouped queries).
    """

    def __init__(self, heads: int, bits: int = 4, *, key_heads: int | None = None, form: str = "integer") -> None:
        integer = form == "integer"

        def operand(count: int) -> Any:
            channels = 1 if integer else count
            activation = LearnedStepActivation(bits, channels=channels, axis=-3, integer=integer)
            return SchemeActQuant.let(quantizer=activation)

        key_heads = key_heads or heads
        super().__init__(
            pre_process_q=_HeadShift(heads),
            pre_process_k=_HeadShift(key_heads),
            q_scaled_quant=operand(heads),
            # Brevitas repeats grouped keys and values before it quantizes them
            k_transposed_quant=operand(heads),
            v_quant=operand(heads),
            attn_output_weights_quant=operand(heads),
        )


class _HeadShift(Keeping):
    def __init__(self, heads: int) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(heads, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.shift


def identity_of(quantizer: Quantizer, shift: nn.Module | None = None) -> qnn.QuantIdentity:
    """A Brevitas layer that does nothing but to quantize what passes, shifted first where a shift is given."""
    return qnn.QuantIdentity(act_quant=SchemeActQuant.let(quantizer=quantizer, shift=shift), return_quant_tensor=False)


def _scaled(x: Tensor, scale: float) -> Tensor:
    return x if scale == 1.0 else x * scale


def _shifted(identity: qnn.QuantIdentity, scale: float) -> ShiftedQuantizer:
    proxy = identity.act_quant
    shifted = ShiftedQuantizer(proxy.quantizer, 0, scale)
    shift = proxy.fused_activation_quant_proxy.activation_impl.shift
    if shift is not None:
        shifted.heads, shifted.shift = shift.shape[0], shift
    return shifted

"""Quantizers inside attentions written in ordinary torch, with Q-SCI's query/key shift."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from qsci_plugins.schemes.quantizer import Mode, Quantizer

__all__ = ["AttentionQuantizers", "ShiftedQuantizer", "attach_attention", "attend", "is_product"]

#: the name under which an attention module holds its quantizers
CHILD = "qsci_attention"

_PRODUCTS = frozenset({torch.matmul, torch.bmm, Tensor.matmul, Tensor.__matmul__, Tensor.bmm})


def is_product(function: Callable[..., Any], args: tuple[Any, ...]) -> bool:
    """Whether a call is a matrix product of two activations, as q @ k.transpose(-2, -1) is; a linear layer is none."""
    return (
        function in _PRODUCTS
        and len(args) == 2
        and all(isinstance(a, Tensor) and a.dim() > 2 and not isinstance(a, nn.Parameter) for a in args)
    )


class ShiftedQuantizer(nn.Module):
    """scale * Q(x / scale + shift), one learned shift for each head, 0 at first (Q-SCI, Eq. 6 and 7).

    x is (..., heads, tokens, d), or (batch, tokens, d) with `heads` 1; transposed tokens are the same to it. `scale`
    is what the network multiplied x with beforehand, so that shift and step mean the same wherever a network puts its
    1/sqrt(d). `heads` 0 leaves the shift out.
    """

    def __init__(self, quantizer: Quantizer, heads: int = 0, scale: float = 1.0) -> None:
        super().__init__()
        self.quantizer = quantizer
        self.heads = heads
        self.scale = scale
        self.shift = nn.Parameter(torch.zeros(heads, 1, 1)) if heads else None

    def forward(self, x: Tensor) -> Tensor:
        if self.quantizer.mode is Mode.OFF:
            return x
        x = self.quantizer(self.shifted(x))
        return x if self.scale == 1.0 else x * self.scale

    def shifted(self, x: Tensor) -> Tensor:
        """x / scale + shift: what the quantizer sees."""
        if self.scale != 1.0:
            x = x / self.scale
        return x if self.shift is None else x + self.shift


class AttentionQuantizers(nn.Module):
    """What one attention module's products are fed through: map(softmax(query(q) key(k)^T)) value(v).

    `query` and `key` stand at ports 0 and 1 of the module's matrix product number `scores` (counted over the products
    of two activations in one forward), `map` and `value` at those of number `context`. With `fused` the module calls
    F.scaled_dot_product_attention instead, which is then computed step by step.
    """

    query: ShiftedQuantizer
    key: ShiftedQuantizer
    value: Quantizer
    map: Quantizer

    def __init__(
        self,
        query: ShiftedQuantizer,
        key: ShiftedQuantizer,
        value: Quantizer,
        map: Quantizer,
        *,
        scores: int = 0,
        context: int = 1,
        fused: bool = False,
    ) -> None:
        super().__init__()
        self.query, self.key, self.value, self.map = query, key, value, map
        self.scores = scores
        self.context = context
        self.fused = fused

    def __iter__(self) -> Iterator[Quantizer]:
        return iter((self.query.quantizer, self.key.quantizer, self.value, self.map))


def attend(
    quantizers: AttentionQuantizers,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """F.scaled_dot_product_attention with quantized operands; the same arguments and shapes."""
    query, key, value = quantizers.query(query), quantizers.key(key), quantizers.value(value)
    if enable_gqa:
        groups = query.shape[-3] // key.shape[-3]
        key, value = key.repeat_interleave(groups, -3), value.repeat_interleave(groups, -3)
    scores = (query @ key.transpose(-2, -1)) * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if attn_mask is not None:
        scores = scores.masked_fill(~attn_mask, -torch.inf) if attn_mask.dtype is torch.bool else scores + attn_mask
    return quantizers.map(F.dropout(scores.softmax(-1), dropout_p)) @ value


class _Interception(TorchFunctionMode):
    """Feeds the operands of one forward of one attention module through its quantizers."""

    def __init__(self, quantizers: AttentionQuantizers) -> None:
        super().__init__()
        self.quantizers = quantizers
        self.products = 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        quantizers = self.quantizers
        if quantizers.fused:
            if func is F.scaled_dot_product_attention:
                return attend(quantizers, *args, **(kwargs or {}))
        elif is_product(func, args):
            number, self.products = self.products, self.products + 1
            if number == quantizers.scores:
                args = (quantizers.query(args[0]), quantizers.key(args[1]))
            elif number == quantizers.context:
                args = (quantizers.map(args[0]), quantizers.value(args[1]))
        return func(*args, **(kwargs or {}))


# Kept apart from the modules, so that these stay copyable and threads do not mix.
_ACTIVE: ContextVar[tuple[_Interception, ...]] = ContextVar("qsci_attention", default=())


def _enter(module: nn.Module, args: tuple[Any, ...]) -> None:
    interception = _Interception(getattr(module, CHILD))
    interception.__enter__()
    _ACTIVE.set((*_ACTIVE.get(), interception))


def _leave(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
    *others, interception = _ACTIVE.get()
    _ACTIVE.set(tuple(others))
    interception.__exit__(None, None, None)


def attach_attention(module: nn.Module, quantizers: AttentionQuantizers) -> None:
    """Gives an attention module its quantizers, as its child `qsci_attention`; its class and code stay as they are."""
    module.add_module(CHILD, quantizers)
    module.register_forward_pre_hook(_enter)
    module.register_forward_hook(_leave, always_call=True)

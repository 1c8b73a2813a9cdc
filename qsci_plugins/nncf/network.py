"""A wrapped network's quantizers, as the rest of this package takes them."""

from __future__ import annotations

import copy
from typing import Any, cast

import torch
from nncf.torch.function_hook.wrapper import ATR_HOOK_STORAGE, get_hook_storage, is_wrapped
from nncf.torch.quantization.layers import BaseQuantizer
from torch import Tensor, nn

from qsci_plugins.errors import UserError
from qsci_plugins.nncf.attention_hooks import FusedAttentionHook
from qsci_plugins.nncf.hooks import QuantizerHook
from qsci_plugins.nncf.placement import input_hook
from qsci_plugins.schemes.attention import AttentionQuantizers
from qsci_plugins.schemes.content import set_content
from qsci_plugins.schemes.ledger import record_bits
from qsci_plugins.schemes.quantizer import Quantizer
from qsci_plugins.schemes.registry import make_scheme
from qsci_plugins.schemes.scheme import LayerQuantizers, QuantizedNetwork, Scheme

__all__ = ["bits_per_layer", "network"]


def network(model: nn.Module, scheme: Scheme | None = None) -> QuantizedNetwork:
    """The quantizers of a network that an algorithm of ours went over; the result shares everything with `model`.

    Raises UserError for a network without them.
    """
    storage = get_hook_storage(model) if is_wrapped(model) else None
    first = None if storage is None else input_hook(storage)
    if storage is None or first is None:
        raise UserError("this network has no quantizers of qsci_plugins; run one of its NNCF algorithms on it first")
    layers: dict[str, LayerQuantizers] = {}
    blocks: dict[str, QuantizerHook] = {}
    attentions: dict[str, AttentionQuantizers] = {}
    operands: dict[str, dict[str, Any]] = {}
    for _, hook in storage.named_hooks():
        if isinstance(hook, FusedAttentionHook):
            attentions[hook.layer] = hook.quantizers
        if not isinstance(hook, QuantizerHook):
            continue
        if hook.role in ("activation", "weight", "output"):
            layer = layers.setdefault(hook.layer, LayerQuantizers(None, None, counted=hook.counted))
            setattr(layer, hook.role, hook.quantizer)
        elif hook.role == "block":
            blocks[hook.layer] = hook
        else:
            operands.setdefault(hook.layer, dict(hook.details))[hook.role] = hook.quantizer
    attentions.update({name: AttentionQuantizers(**parts) for name, parts in operands.items()})
    return QuantizedNetwork(
        model,
        "nncf",
        scheme or make_scheme(first.scheme),
        layers,
        first.input_module,
        first.value_range,
        blocks={
            name: cast(Quantizer, hook.quantizer)
            for name, hook in sorted(blocks.items(), key=lambda entry: entry[1].details["order"])
        },
        attentions=attentions,
        float_form=lambda: float_form(model),
        foreign=tuple(name for name, hook in storage.named_hooks() if isinstance(hook, BaseQuantizer)),
    )


def float_form(model: nn.Module) -> nn.Module:
    """A copy of a wrapped network as it was before NNCF wrapped it, with the weights that it has now."""
    copied = copy.deepcopy(model)
    if is_wrapped(copied):
        original = copied.forward.orig_forward
        del copied._modules[ATR_HOOK_STORAGE]
        for name in ("forward", "_replicate_for_data_parallel"):
            copied.__dict__.pop(name, None)
        if getattr(original, "__func__", original) is not type(copied).forward:
            copied.forward = original  # the network had a forward of its own
    return copied


@torch.no_grad()
def bits_per_layer(quantized: QuantizedNetwork, images: Tensor | None = None) -> dict[str, float]:
    """Activation bits of every quantized layer by name: static ones, or their mean over `images` (N,C,H,W).

    A residual block whose input is quantized once for all its readers stands under its own name. Raises UserError for
    bits that depend on the image where no images are given.
    """
    activations = {name: layer.activation for name, layer in quantized.layers.items() if layer.activation is not None}
    activations |= quantized.blocks
    if images is not None:
        with record_bits() as ledger:
            quantized.model(images)
        recorded = {name: ledger.of(quantizer) for name, quantizer in activations.items()}
        return {name: bits.mean().item() for name, bits in recorded.items() if bits is not None}
    if quantized.input_module is not None:
        raise UserError("this network's bits depend on the image: give images, or quantize with image_mapping=False")
    set_content(None)
    anything = torch.zeros(1, 1, 1, 1)
    return {name: quantizer.qparams(anything).bit_width.item() for name, quantizer in activations.items()}

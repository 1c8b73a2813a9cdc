"""The modules that NNCF calls between a stock network's operations: our quantizers, and what looks at the input."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, cast

import torch
from nncf.torch.function_hook.hook_storage import HookStorage
from nncf.torch.function_hook.wrapper import ATR_HOOK_STORAGE, get_hook_storage, is_wrapped
from nncf.torch.layer_utils import StatefulModuleInterface
from nncf.torch.quantization.layers import BaseQuantizer
from torch import Tensor, nn
from torch._C import DisableTorchFunction
from torch.overrides import handle_torch_function, has_torch_function_unary

from qsci_plugins.errors import UserError
from qsci_plugins.nncf.attention_hooks import FusedAttentionHook
from qsci_plugins.schemes.attention import AttentionQuantizers
from qsci_plugins.schemes.bit_width import record_bits
from qsci_plugins.schemes.block_skip import detach_skips
from qsci_plugins.schemes.content import set_content
from qsci_plugins.schemes.quantizer import Quantizer
from qsci_plugins.schemes.registry import describe, make_scheme, rebuild
from qsci_plugins.schemes.scheme import LayerQuantizers, QuantizedNetwork, Scheme

__all__ = ["InputHook", "QuantizerHook", "SharedQuantizerHook", "bits_per_layer", "input_hook", "network"]


class QuantizerHook(nn.Module, StatefulModuleInterface):
    """Passes a tensor on its way into (or out of) an operation through a quantizer.

    `layer` is the module's name in the stock network and `role` says which of its quantizers this is, so that a wrapped
    network tells everything about itself; `details` has what else belongs to the role, as JSON.
    """

    def __init__(
        self,
        quantizer: nn.Module,
        layer: str,
        role: str,
        *,
        counted: bool = True,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.quantizer = quantizer
        self.layer = layer
        self.role = role
        self.counted = counted
        self.details = dict(details or {})

    def forward(self, x: Tensor) -> Tensor:
        # One operation to NNCF, under the name by which it knows quantizers: its own algorithms then put nothing
        # inside, see a weight through it, and no time goes into naming every operation of a forward.
        def asymmetric_quantize(x: Tensor) -> Tensor:
            return self.quantizer(x)

        if has_torch_function_unary(x):
            return handle_torch_function(asymmetric_quantize, (x,), x)
        return asymmetric_quantize(x)

    def get_config(self) -> dict[str, Any]:
        return {
            "layer": self.layer,
            "role": self.role,
            "counted": self.counted,
            "details": self.details,
            "quantizer": describe(self.quantizer),
        }

    @classmethod
    def from_config(cls, state: Mapping[str, Any]) -> QuantizerHook:
        return cls(
            rebuild(state["quantizer"]),
            str(state["layer"]),
            str(state["role"]),
            counted=bool(state["counted"]),
            details=state["details"],
        )


class SharedQuantizerHook(QuantizerHook):
    """Quantizes once what several operations read: the input of a residual block, for its branch and its skip.

    `details["readers"]` is how many read it; the last one lets go of the tensors.
    """

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._held = _Held()

    def forward(self, x: Tensor) -> Tensor:
        held = self._held
        if held.given is not x:
            held.given, held.quantized, held.left = x, super().forward(x), self.details["readers"]
        quantized = held.quantized
        held.left -= 1
        if held.left == 0:
            held.given = held.quantized = None
        assert quantized is not None
        return quantized


class _Held:
    """A tensor and its quantized form while a forward is under way; a copied or saved network has none."""

    given: Tensor | None = None
    quantized: Tensor | None = None
    left = 0

    def __reduce__(self) -> tuple[type[_Held], tuple[()]]:
        return _Held, ()


class InputHook(nn.Module, StatefulModuleInterface):
    """Sees every network input before any layer runs: sets the content that the quantizers of this forward read.

    A network without an `input_module` clears it, so that another network's content is never taken for its own. The
    hook also carries what belongs to the network as a whole: the scheme's settings and the range of its images.
    """

    def __init__(self, input_module: nn.Module | None, scheme: Mapping[str, Any], value_range: float) -> None:
        super().__init__()
        self.input_module = input_module
        self.scheme = dict(scheme)
        self.value_range = value_range

    def forward(self, image: Tensor) -> Tensor:
        with DisableTorchFunction():  # NNCF's graph must not show these operations, or it would quantize them
            if self.input_module is None:
                set_content(None)
            else:
                self.input_module(image)
        return image

    def get_config(self) -> dict[str, Any]:
        described = None if self.input_module is None else describe(self.input_module)
        return {"input_module": described, "scheme": self.scheme, "value_range": self.value_range}

    @classmethod
    def from_config(cls, state: Mapping[str, Any]) -> InputHook:
        described = state["input_module"]
        module = None if described is None else rebuild(described)
        return cls(module, state["scheme"], float(state["value_range"]))


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
    detach_skips(copied)
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
            quantized.model(images.to(quantized.device))
        recorded = {name: ledger.of(quantizer) for name, quantizer in activations.items()}
        return {name: bits.mean().item() for name, bits in recorded.items() if bits is not None}
    if quantized.input_module is not None:
        raise UserError("this network's bits depend on the image: give images, or quantize with image_mapping=False")
    set_content(None)
    return {
        name: quantizer.qparams(torch.zeros(1, 1, 1, 1, device=quantizer.calibrated.device)).bit_width.item()
        for name, quantizer in activations.items()
    }


def input_hook(storage: HookStorage) -> InputHook | None:
    """The hook that one of our schemes left, None in a network without."""
    return next((hook for _, hook in storage.named_hooks() if isinstance(hook, InputHook)), None)

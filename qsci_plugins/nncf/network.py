"""A scheme's quantizers in an NNCF-wrapped network: put there, and found again."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from nncf.common.graph.graph import NNCFGraph
from nncf.common.graph.transformations.layout import TransformationLayout
from nncf.torch.function_hook.commands import PT2InsertionCommand
from nncf.torch.function_hook.hook_storage import HookStorage, RemovableHookHandle
from nncf.torch.function_hook.model_transformer import PT2ModelTransformer
from nncf.torch.function_hook.nncf_graph.nncf_graph_builder import GraphModelWrapper
from nncf.torch.function_hook.wrapper import get_hook_storage, is_wrapped
from nncf.torch.graph.transformations.commands import PTTargetPoint
from torch import Tensor, nn

from qsci_plugins.errors import UserError
from qsci_plugins.nncf.hooks import InputHook, QuantizerHook
from qsci_plugins.nncf.placement import input_point, layer_points
from qsci_plugins.schemes.content import set_content
from qsci_plugins.schemes.ledger import record_bits
from qsci_plugins.schemes.placement import Placement, place
from qsci_plugins.schemes.quantizer import Quantizer
from qsci_plugins.schemes.registry import make_scheme
from qsci_plugins.schemes.scheme import LayerQuantizers, QuantizedNetwork, Scheme

__all__ = ["Plan", "bits_per_layer", "insert", "make_plan", "network"]


@dataclass
class Plan:
    """New quantizers for a network and the points where they belong, before anything is inserted."""

    scheme: Scheme
    value_range: float
    input_point: PTTargetPoint
    input_hook: InputHook
    hooks: list[tuple[QuantizerHook, list[PTTargetPoint]]] = field(default_factory=list)


def make_plan(model: nn.Module, graph: NNCFGraph, scheme: Scheme, placement: Placement, value_range: float) -> Plan:
    """Makes a scheme's quantizers for the layers that a placement names.

    Raises UserError where the placement does not fit, and for a network that one of our schemes quantizes already.
    """
    if is_wrapped(model) and _input_hook(get_hook_storage(model)) is not None:
        raise UserError("this network is quantized by a qsci_plugins scheme already; start from the float network")
    input_module = scheme.input_module(value_range)
    settings = scheme.config.model_dump(mode="json")
    plan = Plan(scheme, value_range, input_point(graph), InputHook(input_module, settings, value_range))
    precisions = place(model, placement)
    for name, points in layer_points(model, graph, precisions).items():
        made = scheme.layer(model.get_submodule(name), precisions[name])
        for role in ("activation", "weight", "output"):
            quantizer = getattr(made, role)
            if quantizer is not None:
                plan.hooks.append((QuantizerHook(quantizer, name, role, made.counted), getattr(points, role)))
    return plan


def insert(plan: Plan, wrapper: GraphModelWrapper) -> QuantizedNetwork:
    """Puts a plan's quantizers into the wrapped network, in place."""
    layout = TransformationLayout()
    handles: list[RemovableHookHandle] = []
    layout.register(PT2InsertionCommand([plan.input_point], plan.input_hook, handle_storage=handles))
    for hook, points in plan.hooks:
        layout.register(PT2InsertionCommand(points, hook))
    PT2ModelTransformer(wrapper).transform(layout)
    _run_first(get_hook_storage(wrapper.model), handles[0])
    return network(wrapper.model, plan.scheme)


def network(model: nn.Module, scheme: Scheme | None = None) -> QuantizedNetwork:
    """The quantizers of a network that an algorithm of ours went over, as the rest of this package takes them.

    The result shares everything with `model`. Raises UserError for a network without them.
    """
    storage = get_hook_storage(model) if is_wrapped(model) else None
    first = None if storage is None else _input_hook(storage)
    if storage is None or first is None:
        raise UserError("this network has no quantizers of qsci_plugins; run one of its NNCF algorithms on it first")
    layers: dict[str, LayerQuantizers] = {}
    for _, hook in storage.named_hooks():
        if isinstance(hook, QuantizerHook):
            layer = layers.setdefault(hook.layer, LayerQuantizers(None, None, counted=hook.counted))
            assert isinstance(hook.quantizer, Quantizer)
            setattr(layer, hook.role, hook.quantizer)
    return QuantizedNetwork(
        model, "nncf", scheme or make_scheme(first.scheme), layers, first.input_module, first.value_range
    )


def _input_hook(storage: HookStorage) -> InputHook | None:
    return next((hook for _, hook in storage.named_hooks() if isinstance(hook, InputHook)), None)


def _run_first(storage: HookStorage, handle: RemovableHookHandle) -> None:
    """Moves a post-hook before those at the same point, such as NNCF's quantizer of the network's input."""
    hooks = storage.post_hooks[handle.key]
    assert isinstance(hooks, nn.ModuleDict)
    order = sorted(hooks.items(), key=lambda item: item[0] != handle.id)
    hooks.clear()
    hooks.update(order)


@torch.no_grad()
def bits_per_layer(quantized: QuantizedNetwork, images: Tensor | None = None) -> dict[str, float]:
    """Activation bits of every quantized layer by name: static ones, or their mean over `images` (N,C,H,W).

    Raises UserError for bits that depend on the image where no images are given.
    """
    activations = {name: layer.activation for name, layer in quantized.layers.items() if layer.activation is not None}
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

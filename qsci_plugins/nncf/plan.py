"""A scheme's quantizers for a network, and where NNCF is to put them."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import Any

from nncf.common.graph.transformations.commands import TargetType
from nncf.common.graph.transformations.layout import TransformationLayout
from nncf.torch.function_hook.commands import PT2InsertionCommand
from nncf.torch.function_hook.hook_storage import HookStorage, RemovableHookHandle
from nncf.torch.function_hook.model_transformer import PT2ModelTransformer
from nncf.torch.function_hook.nncf_graph.nncf_graph_builder import GraphModelWrapper
from nncf.torch.function_hook.wrapper import get_hook_storage, is_wrapped
from nncf.torch.graph.graph import PTNNCFGraph
from nncf.torch.graph.transformations.commands import PTTargetPoint
from torch import Tensor, nn

from qsci_plugins.errors import UserError
from qsci_plugins.nncf.attention_hooks import FusedAttentionHook, OperandHook, operand_names
from qsci_plugins.nncf.hooks import InputHook, QuantizerHook, SharedQuantizerHook
from qsci_plugins.nncf.placement import input_point, layer_points
from qsci_plugins.nncf.tracing import Calls, record_calls, without_hooks
from qsci_plugins.schemes.attention import AttentionQuantizers
from qsci_plugins.schemes.placement import Placement
from qsci_plugins.schemes.scheme import Scheme

__all__ = ["FusedSite", "HookPlan", "input_hook", "insert", "make_plan"]


@dataclass
class FusedSite:
    """A call of F.scaled_dot_product_attention: by parameter its ports, and the values of those that are no tensors."""

    hook: FusedAttentionHook
    ports: dict[str, PTTargetPoint]
    constants: dict[str, Any]
    output: PTTargetPoint


@dataclass
class HookPlan:
    """New hooks for a network and the points where they belong, before anything is inserted."""

    input_point: PTTargetPoint
    input_hook: InputHook
    hooks: list[tuple[QuantizerHook, list[PTTargetPoint]]] = field(default_factory=list)
    fused: list[FusedSite] = field(default_factory=list)


def make_plan(
    wrapper: GraphModelWrapper, graph: PTNNCFGraph, scheme: Scheme, placement: Placement, value_range: float
) -> HookPlan:
    """Makes a scheme's quantizers for the layers that a placement names, and for what else the scheme quantizes.

    Raises UserError where the placement does not fit, and for a network that one of our schemes quantizes already.
    """
    model = wrapper.model
    if is_wrapped(model) and input_hook(get_hook_storage(model)) is not None:
        raise UserError("this network is quantized by a qsci_plugins scheme already; start from the float network")
    example = _positional(wrapper)
    tensors = [value for value in example if isinstance(value, Tensor)]
    with without_hooks(model):
        made = scheme.plan(model, placement, tensors[0] if len(tensors) == 1 else tensors)
    settings = scheme.config.model_dump(mode="json")
    plan = HookPlan(input_point(graph), InputHook(scheme.input_module(value_range), settings, value_range))
    for name, points in layer_points(model, graph, made.layers).items():
        quantizers = made.layers[name]
        for role in ("activation", "weight", "output"):
            if (quantizer := getattr(quantizers, role)) is not None:
                hook = QuantizerHook(quantizer, name, role, counted=quantizers.counted)
                plan.hooks.append((hook, getattr(points, role)))
    if made.blocks or made.attentions:
        modules = {name: model.get_submodule(name) for name in (*made.blocks, *made.attentions)}
        calls = record_calls(model, example, set(modules.values()))
        # an outer block's quantizer runs before that of a block inside, which may read the same tensor
        for order, name in sorted(enumerate(made.blocks), key=lambda entry: entry[1].count(".")):
            runs = calls.readers(modules[name])
            details = {"readers": len(runs[0]), "order": order}
            hook = SharedQuantizerHook(made.blocks[name], name, "block", details=details)
            plan.hooks.append((hook, [_before(*reader) for run in runs for reader in run]))
        for name, attention in made.attentions.items():
            _plan_attention(plan, calls, modules[name], name, attention)
    return plan


def insert(plan: HookPlan, wrapper: GraphModelWrapper) -> None:
    """Puts a plan's hooks into the wrapped network, in place."""
    layout = TransformationLayout()
    handles: list[RemovableHookHandle] = []
    layout.register(PT2InsertionCommand([plan.input_point], plan.input_hook, handle_storage=handles))
    for hook, points in plan.hooks:
        layout.register(PT2InsertionCommand(points, hook))
    for site in plan.fused:
        for parameter, point in site.ports.items():
            layout.register(PT2InsertionCommand([point], OperandHook(site.hook.layer, parameter)))
        layout.register(PT2InsertionCommand([site.output], site.hook))
    PT2ModelTransformer(wrapper).transform(layout)
    _run_first(get_hook_storage(wrapper.model), handles[0])


def input_hook(storage: HookStorage) -> InputHook | None:
    """The hook that one of our schemes left, None in a network without."""
    return next((hook for _, hook in storage.named_hooks() if isinstance(hook, InputHook)), None)


def _positional(wrapper: GraphModelWrapper) -> tuple[Any, ...]:
    """The example input as positional arguments of the network."""
    example = wrapper.example_input
    if isinstance(example, dict):
        return inspect.signature(wrapper.model.forward).bind(**example).args
    return example if isinstance(example, tuple) else (example,)


def _plan_attention(plan: HookPlan, calls: Calls, module: nn.Module, name: str, attention: AttentionQuantizers) -> None:
    if attention.fused:
        call = calls.fused_attention(module)
        parameters = operand_names(call.names)
        ports = {parameter: _before(call.operation, port) for port, parameter in enumerate(parameters)}
        arguments = zip(parameters, call.arguments, strict=True)
        constants = {parameter: value for parameter, value in arguments if not isinstance(value, Tensor)}
        output = PTTargetPoint(TargetType.OPERATOR_POST_HOOK, call.operation)
        plan.fused.append(FusedSite(FusedAttentionHook(attention, name), ports, constants, output))
        return
    products, runs = calls.products(module), len(calls.inputs[module])
    step = len(products) // runs
    details = {"scores": attention.scores, "context": attention.context}
    for role, number, port in (
        ("query", attention.scores, 0),
        ("key", attention.scores, 1),
        ("map", attention.context, 0),
        ("value", attention.context, 1),
    ):
        hook = QuantizerHook(getattr(attention, role), name, role, details=details)
        plan.hooks.append((hook, [_before(operation, port) for operation in products[number::step]]))


def _before(operation: str, port: int) -> PTTargetPoint:
    return PTTargetPoint(TargetType.OPERATOR_PRE_HOOK, operation, input_port_id=port)


def _run_first(storage: HookStorage, handle: RemovableHookHandle) -> None:
    """Moves a post-hook before those at the same point, such as NNCF's quantizer of the network's input."""
    hooks = storage.post_hooks[handle.key]
    assert isinstance(hooks, nn.ModuleDict)
    order = sorted(hooks.items(), key=lambda item: item[0] != handle.id)
    hooks.clear()
    hooks.update(order)

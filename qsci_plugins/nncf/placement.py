"""Where NNCF's graph of a network has the inputs, weights and outputs of its layers."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from nncf import IgnoredScope
from nncf.common.graph.graph import NNCFGraph, NNCFNode
from nncf.common.graph.transformations.commands import TargetType
from nncf.common.graph.transformations.layout import TransformationLayout
from nncf.scopes import get_ignored_node_names_from_ignored_scope
from nncf.torch.function_hook.commands import PT2InsertionCommand
from nncf.torch.function_hook.hook_storage import HookStorage, RemovableHookHandle
from nncf.torch.function_hook.model_transformer import PT2ModelTransformer
from nncf.torch.function_hook.nncf_graph.nncf_graph_builder import GraphModelWrapper, build_nncf_graph
from nncf.torch.function_hook.wrapper import get_hook_storage, is_wrapped
from nncf.torch.graph.graph import PTNNCFGraph
from nncf.torch.graph.operator_metatypes import QUANTIZE_NODE_TYPES
from nncf.torch.graph.transformations.commands import PTTargetPoint
from torch import Tensor, nn

from qsci_plugins.errors import UserError
from qsci_plugins.nncf.attention_hooks import FusedAttentionHook, OperandHook, operand_names
from qsci_plugins.nncf.hooks import InputHook, QuantizerHook, SharedQuantizerHook, input_hook
from qsci_plugins.nncf.tracing import Calls, record_calls, without_hooks
from qsci_plugins.schemes.attention import AttentionQuantizers
from qsci_plugins.schemes.placement import Placement, copy_folded, leave_float, place, place_called
from qsci_plugins.schemes.scheme import Scheme, module_device

__all__ = [
    "FusedSite",
    "HookPlan",
    "LayerPoints",
    "all_but",
    "hidden_layers",
    "ignored_layers",
    "input_point",
    "insert",
    "layer_points",
    "make_plan",
]


@dataclass(frozen=True)
class LayerPoints:
    """The target points of one layer, one of each kind for every time that the network calls it."""

    activation: list[PTTargetPoint]
    weight: list[PTTargetPoint]
    output: list[PTTargetPoint]


def layer_points(model: nn.Module, graph: NNCFGraph, names: Iterable[str]) -> dict[str, LayerPoints]:
    """The points of layers by module name, in the given order.

    A layer is found by its weight, not by its operation's name, from which NNCF drops the indices of module lists.
    Raises UserError for a layer that the graph does not show, or that has a quantizer already.
    """
    first_names, constants = _weights(model, graph)
    taken: dict[str, str] = {}
    points = {}
    for name in names:
        module = model.get_submodule(name)
        weight = first_names.get(id(module.weight))
        if weight is None or weight not in constants:
            raise UserError(
                f"layer {name!r} cannot be quantized through NNCF: its graph does not show the layer's weight. Either"
                " the network does not call the layer for this input, or the weight is computed (weight norm); exclude"
                " it with place.float"
            )
        if weight in taken:
            raise UserError(
                f"layers {taken[weight]!r} and {name!r} share one weight; exclude one of them with place.float"
            )
        taken[weight] = name
        points[name] = _points(graph, name, module, constants[weight])
    return points


def hidden_layers(model: nn.Module, graph: NNCFGraph, names: Iterable[str]) -> list[str]:
    """The layers whose weight the graph does not show: it is computed, or used where NNCF does not look."""
    first_names, constants = _weights(model, graph)
    return [name for name in names if first_names.get(id(model.get_submodule(name).weight)) not in constants]


def _weights(model: nn.Module, graph: NNCFGraph) -> tuple[dict[int, str], dict[str, NNCFNode]]:
    """The names of parameters by identity, and the graph's constants by name."""
    # a weight under several names stands in the graph under its first
    first_names = {id(parameter): name for name, parameter in model.named_parameters()}
    return first_names, {node.node_name: node for node in graph.get_nodes_by_types(["nncf_model_const"])}


def input_point(graph: NNCFGraph) -> PTTargetPoint:
    """Behind the network's first tensor input."""
    nodes = graph.get_input_nodes()
    if not nodes:
        raise UserError("NNCF sees no input of this network: its forward must take the image as a named argument")
    return PTTargetPoint(TargetType.OPERATOR_POST_HOOK, nodes[0].node_name)


def all_but(model: nn.Module, example: Tensor, targets: Sequence[str]) -> IgnoredScope:
    """The `ignored_scope` with which an algorithm of NNCF touches nothing but the layers named by patterns.

    `example` is an input that the float network accepts. Raises UserError for a pattern that matches no layer.
    """
    graph = build_nncf_graph(model, example)
    points = layer_points(model, graph, place(model, Placement(tuple(targets))))
    kept = {point.target_node_name for layer in points.values() for point in layer.weight}
    structure = ("nncf_model_input", "nncf_model_output", "nncf_model_const")
    names = [node.node_name for node in graph.get_all_nodes() if node.node_type not in structure]
    return IgnoredScope(names=[name for name in names if name not in kept])


def ignored_layers(model: nn.Module, example: tuple[Tensor, ...], scope: IgnoredScope) -> tuple[str, ...]:
    """The layers, by module name, whose operations an `ignored_scope` takes out.

    `example` are inputs that the float network accepts. NNCF raises for a name or pattern that matches no operation.
    """
    copied = copy_folded(model).eval()
    graph = build_nncf_graph(copied, example)
    ignored = get_ignored_node_names_from_ignored_scope(scope, graph, strict=scope.validate)
    constants = {node.node_name: node for node in graph.get_nodes_by_types(["nncf_model_const"])}
    first_names = {id(parameter): name for name, parameter in copied.named_parameters()}
    layers = []
    for name in place(copied, Placement()):
        constant = constants.get(first_names.get(id(copied.get_submodule(name).weight), ""))
        if constant is not None and any(e.to_node.node_name in ignored for e in graph.get_output_edges(constant)):
            layers.append(name)
    return tuple(layers)


def _points(graph: NNCFGraph, name: str, module: nn.Module, constant: NNCFNode) -> LayerPoints:
    found = LayerPoints([], [], [])
    before = TargetType.OPERATOR_PRE_HOOK
    for edge in sorted(graph.get_output_edges(constant), key=lambda edge: edge.to_node.node_id):
        call = first = edge.to_node
        source = _input(graph, call)
        if source is not None and getattr(module, "padding_mode", "zeros") != "zeros" and source.node_type == "pad":
            first = source  # the layer pads by itself: its input is what it pads
            source = _input(graph, first)
        if call.node_type in QUANTIZE_NODE_TYPES or (source is not None and source.node_type in QUANTIZE_NODE_TYPES):
            raise UserError(
                f"layer {name!r} is quantized already; start from the float network, and give each layer to one"
                " algorithm (ignored_scope of an NNCF algorithm, place.float of ours)"
            )
        found.activation.append(PTTargetPoint(before, first.node_name, input_port_id=0))
        found.weight.append(PTTargetPoint(before, call.node_name, input_port_id=edge.input_port_id))
        found.output.append(PTTargetPoint(TargetType.OPERATOR_POST_HOOK, call.node_name))
    return found


def _input(graph: NNCFGraph, node: NNCFNode) -> NNCFNode | None:
    """What computes the first argument of an operation."""
    return next((edge.from_node for edge in graph.get_input_edges(node) if edge.input_port_id == 0), None)


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
        placement = place_called(model, placement, tensors)
        placement = leave_float(placement, hidden_layers(model, graph, place(model, placement)))
        scheme_plan = scheme.plan(model, placement, tensors[0] if len(tensors) == 1 else tensors).beside(model)
    settings = scheme.config.model_dump(mode="json")
    images = InputHook(scheme.input_module(value_range), settings, value_range).to(module_device(model))
    plan = HookPlan(input_point(graph), images)
    for name, points in layer_points(model, graph, scheme_plan.layers).items():
        quantizers = scheme_plan.layers[name]
        for role in ("activation", "weight", "output"):
            if (quantizer := getattr(quantizers, role)) is not None:
                hook = QuantizerHook(quantizer, name, role, counted=quantizers.counted)
                plan.hooks.append((hook, getattr(points, role)))
    if scheme_plan.blocks or scheme_plan.attentions:
        modules = {name: model.get_submodule(name) for name in (*scheme_plan.blocks, *scheme_plan.attentions)}
        calls = record_calls(model, example, set(modules.values()))
        # an outer block's quantizer runs before that of a block inside, which may read the same tensor
        for order, name in sorted(enumerate(scheme_plan.blocks), key=lambda entry: entry[1].count(".")):
            runs = calls.readers(modules[name])
            details = {"readers": len(runs[0]), "order": order}
            hook = SharedQuantizerHook(scheme_plan.blocks[name], name, "block", details=details)
            plan.hooks.append((hook, [_before(*reader) for run in runs for reader in run]))
        for name, attention in scheme_plan.attentions.items():
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

"""Where NNCF's graph of a network has the inputs, weights and outputs of its layers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from nncf import IgnoredScope
from nncf.common.graph.graph import NNCFGraph, NNCFNode
from nncf.common.graph.transformations.commands import TargetType
from nncf.scopes import get_ignored_node_names_from_ignored_scope
from nncf.torch.function_hook.nncf_graph.nncf_graph_builder import build_nncf_graph
from nncf.torch.graph.operator_metatypes import QUANTIZE_NODE_TYPES
from nncf.torch.graph.transformations.commands import PTTargetPoint
from torch import Tensor, nn

from qsci_plugins.errors import UserError
from qsci_plugins.schemes.norms import copy_folded
from qsci_plugins.schemes.placement import Placement, place

__all__ = ["LayerPoints", "all_but", "ignored_layers", "input_point", "layer_points"]


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
    # a weight under several names stands in the graph under its first
    first_names = {id(parameter): name for name, parameter in model.named_parameters()}
    constants = {node.node_name: node for node in graph.get_nodes_by_types(["nncf_model_const"])}
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

"""Our schemes as NNCF algorithms: they declare their statistics, and apply themselves to the graph."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from nncf import Dataset
from nncf.common.graph.graph import NNCFGraph
from nncf.common.graph.transformations.commands import TargetType
from nncf.common.logging import nncf_logger
from nncf.common.logging.track_progress import track
from nncf.common.tensor_statistics.collectors import TensorCollector
from nncf.common.tensor_statistics.statistic_point import StatisticPoint, StatisticPointsContainer
from nncf.common.utils.backend import BackendType
from nncf.quantization.algorithms.algorithm import Algorithm
from nncf.torch.function_hook.nncf_graph.nncf_graph_builder import GraphModelWrapper
from nncf.torch.graph.transformations.commands import PTTargetPoint
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from qsci_plugins.errors import UserError
from qsci_plugins.nncf.build_lock import check_build_locks
from qsci_plugins.nncf.hooks import network as quantized_network
from qsci_plugins.nncf.placement import HookPlan, insert, make_plan
from qsci_plugins.nncf.statistics import (
    attention_reducer,
    batch_collector,
    batches_of,
    first_collector,
    operand_reducer,
    quantizer_and_reducer,
)
from qsci_plugins.schemes.placement import Placement
from qsci_plugins.schemes.quantizer import Quantizer
from qsci_plugins.schemes.registry import make_scheme
from qsci_plugins.schemes.scheme import Scheme, check_batches, finish_observation, first_inputs, module_device

__all__ = ["AdaBMQuantization", "CADyQQuantization", "QSCIQuantization", "SchemeQuantization"]


class SchemeQuantization(Algorithm):
    """Quantizes the layers that a placement names with a scheme, on inputs in 0..value_range.

    Runs in an NNCF `Pipeline`, alone or with NNCF's algorithms on other layers:

        wrapper = GraphModelWrapper(wrap_model(model), example_input)
        Pipeline([[SchemeQuantization(scheme, placement)]]).run(wrapper, nncf.Dataset(batches)).model

    NNCF collects the statistics over the whole dataset, whose items may be on another device than the network; then the
    quantizers are fitted, inserted and, where the scheme refines, run over the first items. The result equals that of
    observing the float network over the same batches.
    """

    def __init__(self, scheme: Scheme, placement: Placement | None = None, value_range: float = 255.0) -> None:
        self.scheme = scheme
        self.placement = placement or Placement()
        self.value_range = value_range
        self._run: _Run | None = None

    @property
    def available_backends(self) -> list[BackendType]:
        return [BackendType.TORCH]

    def get_statistic_points(self, model: GraphModelWrapper, graph: NNCFGraph) -> StatisticPointsContainer:
        """Makes the quantizers, and asks for what each of them reduces its tensors to.

        Raises UserError where the placement does not fit the network, or something quantizes it already.
        """
        plan = make_plan(model, graph, self.scheme, self.placement, self.value_range)
        if self._run is not None:
            self._run.moving.remove()
        moving = model.model.register_forward_pre_hook(_move_inputs, with_kwargs=True)
        run = self._run = _Run(plan, moving, images_only=len(graph.get_input_nodes()) == 1)
        container = StatisticPointsContainer()

        def ask(points: Sequence[PTTargetPoint], collector: TensorCollector) -> TensorCollector:
            for point in points:
                container.add_statistic_point(StatisticPoint(point, collector, type(self).__name__))
            return collector

        run.extremes = ask([plan.input_point], batch_collector(_extremes))
        input_module = plan.input_hook.input_module
        if input_module is not None and hasattr(input_module, "update"):
            run.collectors.append((input_module, ask([plan.input_point], batch_collector(input_module.reduce))))
        for hook, points in plan.hooks:
            quantizer, reduce = quantizer_and_reducer(hook)
            # a quantizer that takes no statistics (most of those for weights) needs no pass over its tensor
            if type(quantizer).update is not Quantizer.update:
                # what several operations read is one tensor
                points = points[:: hook.details.get("readers", 1)]
                run.collectors.append((quantizer, ask(points, batch_collector(reduce))))
        for site in plan.fused:
            for parameter, point in site.ports.items():
                if parameter not in site.constants:
                    ask([point], batch_collector(operand_reducer(site, parameter)))
            ask([site.output], batch_collector(attention_reducer(site)))
        for node in graph.get_input_nodes():
            point = PTTargetPoint(TargetType.OPERATOR_POST_HOOK, node.node_name)
            run.first_inputs[node.node_name] = ask([point], first_collector(self.scheme.batch_images))
        return container

    def apply(
        self,
        model: GraphModelWrapper,
        graph: NNCFGraph,
        statistic_points: StatisticPointsContainer | None = None,
        dataset: Dataset | None = None,
    ) -> GraphModelWrapper:
        """Fits the quantizers to the statistics and inserts them into the network.

        Raises UserError where there are none, or where the images' range is not the network's.
        """
        run, self._run = self._run, None
        if run is None or statistic_points is None:
            raise UserError(f"{type(self).__name__} needs statistics: run it in an NNCF Pipeline with an nncf.Dataset")
        run.moving.remove()
        extremes = torch.stack(batches_of(run.extremes))[None, None]
        check_batches([extremes if run.images_only else [extremes]], self.value_range)
        for module, collector in run.collectors:
            for statistics in batches_of(collector):
                module.update(statistics)  # type: ignore[operator]
        insert(run.plan, model)
        network = quantized_network(model.model, self.scheme)
        first = [batches_of(collector) for collector in run.first_inputs.values()]
        finish_observation(network, first[0][0].shape[0])
        before, self.scheme.on_progress = self.scheme.on_progress, _Bar()
        try:
            self.scheme.complete(network, first_inputs(zip(*first, strict=False), self.scheme.batch_images))
        finally:
            self.scheme.on_progress = before
        return model


class _NamedQuantization(SchemeQuantization):
    """A scheme by name, with its settings and the placement's patterns as plain arguments."""

    _name: ClassVar[str]

    def __init__(
        self,
        *,
        targets: Sequence[str] = ("*",),
        eight_bit: Sequence[str] = (),
        float_: Sequence[str] = (),
        value_range: float = 255.0,
        **settings: Any,
    ) -> None:
        try:
            check_build_locks()
        except UserError as error:  # of no matter to ours, and a minute's wait where NNCF's quantize other layers
            nncf_logger.warning(str(error))
        placement = Placement(tuple(targets), tuple(eight_bit), tuple(float_))
        super().__init__(make_scheme({"name": self._name, **settings}), placement, value_range)


class AdaBMQuantization(_NamedQuantization):
    """AdaBM: bits per image and layer; with `image_mapping=False` static bits, different per layer (mixed precision).

    `settings` are those of `qsci_plugins.schemes.adabm.AdaBMConfig`, such as weight_bits=4, activation_bits=4; the
    patterns are those of `qsci_plugins.schemes.placement.Placement`. Raises UserError for an unknown setting.
    """

    _name = "adabm"


class CADyQQuantization(_NamedQuantization):
    """CADyQ: a bit selector for each layer and patch, to be trained; until then it takes the widest candidate.

    `settings` are those of `qsci_plugins.schemes.cadyq.CADyQConfig`, such as candidates=(4, 6, 8); the patterns are
    those of `qsci_plugins.schemes.placement.Placement`. Raises UserError for an unknown setting.
    """

    _name = "cadyq"


class QSCIQuantization(_NamedQuantization):
    """Q-SCI: learned steps and zero points, and shifted queries and keys in every attention that `attention` names.

    `settings` are those of `qsci_plugins.schemes.qsci.QSCIConfig`, such as weight_bits=4, activation_bits=4,
    attention=("*",); the patterns are those of `qsci_plugins.schemes.placement.Placement`. Raises UserError for an
    unknown setting.
    """

    _name = "qsci"


@dataclass
class _Run:
    """What an algorithm remembers between asking for statistics and getting them."""

    plan: HookPlan
    #: moves what the network gets while statistics are collected
    moving: RemovableHandle
    images_only: bool
    extremes: TensorCollector = field(default_factory=TensorCollector)
    collectors: list[tuple[nn.Module, TensorCollector]] = field(default_factory=list)
    first_inputs: dict[str, TensorCollector] = field(default_factory=dict)


class _Bar:
    """Shows a scheme's progress as NNCF shows its own."""

    def __init__(self) -> None:
        self._steps: Iterator[int] | None = None

    def __call__(self, title: str, done: int, total: int) -> None:
        if self._steps is None:
            self._steps = iter(track(range(total), total=total, description=title))
        next(self._steps, None)  # a step is over when the next one is asked for
        if done == total:
            self._steps = None


def _move_inputs(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    device = module_device(model)

    def moved(value: Any) -> Any:
        return value.to(device) if isinstance(value, Tensor) else value

    return tuple(moved(value) for value in args), {name: moved(value) for name, value in kwargs.items()}


def _extremes(image: Tensor) -> Tensor:
    if image.dim() < 3:
        check_batches([image], 1.0)  # raises; once the statistics are in, the shape is known no more
    return torch.stack([image.amin(), image.amax()])

"""Which operations, by NNCF's names, a residual block's input and an attention's products go through."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from nncf.torch.function_hook.graph.build_graph_mode import GraphBuilderMode
from nncf.torch.function_hook.hook_executor_mode import FunctionHookMode, OpMeta
from nncf.torch.function_hook.hook_storage import HookStorage
from nncf.torch.function_hook.nncf_graph.nncf_graph_builder import GraphModelWrapper, convert_to_nncf_graph
from nncf.torch.function_hook.wrapper import ATR_HOOK_STORAGE, is_wrapped
from nncf.torch.graph.graph import PTNNCFGraph
from nncf.torch.utils import training_mode_switcher
from torch import Tensor, nn
from torch.nn import functional as F

from qsci_plugins.schemes.attention import is_product
from qsci_plugins.schemes.placement import first_argument

__all__ = ["Call", "Calls", "TracedModel", "record_calls", "without_hooks"]


@dataclass(frozen=True)
class Call:
    """One operation: its NNCF name, the modules under way, and its arguments by port, with names where it has them."""

    operation: str
    function: Callable[..., Any]
    modules: tuple[nn.Module, ...]
    arguments: list[Any]
    names: list[str]


@dataclass
class Calls:
    """All operations of one forward, in order, and the first input of some modules, for every time they ran."""

    operations: list[Call] = field(default_factory=list)
    inputs: dict[nn.Module, list[Tensor]] = field(default_factory=dict)

    def readers(self, module: nn.Module) -> list[list[tuple[str, int]]]:
        """The (operation, port) that read a module's first input inside it, for every time that the module ran."""
        return [
            [
                (call.operation, port)
                for call in self.operations
                if module in call.modules and call.function.__name__ != "__get__"
                for port, argument in enumerate(call.arguments)
                if argument is given
            ]
            for given in self.inputs[module]
        ]

    def products(self, module: nn.Module) -> list[str]:
        """The matrix products of two activations that a module computes by itself."""
        return [c.operation for c in self._of(module) if is_product(c.function, tuple(c.arguments))]

    def fused_attention(self, module: nn.Module) -> Call:
        """The call of F.scaled_dot_product_attention that a module makes."""
        return next(c for c in self._of(module) if c.function is F.scaled_dot_product_attention)

    def _of(self, module: nn.Module) -> Iterator[Call]:
        """What a module calls itself, or through children that hold nothing, such as a softmax."""
        for call in self.operations:
            holders = (m for m in reversed(call.modules) if any(m.children()) or any(True for _ in m.parameters()))
            if next(holders, None) is module:
                yield call


@torch.no_grad()
def record_calls(model: nn.Module, example: Sequence[Any], watched: Collection[nn.Module]) -> Calls:
    """Runs the float network on `example`, noting all operations, and the inputs of the modules to be watched."""
    calls = Calls(inputs={module: [] for module in watched})
    training = {module: module.training for module in model.modules()}
    model.eval()
    with ExitStack() as stack:
        for module in watched:
            stack.callback(module.register_forward_pre_hook(_note_input(calls), with_kwargs=True).remove)
        try:
            with without_hooks(model), _Recorder(model, calls):
                forward = model.forward.orig_forward if is_wrapped(model) else model.forward
                forward(*example)
        finally:
            for module, was in training.items():
                module.training = was
    return calls


@contextmanager
def without_hooks(model: nn.Module) -> Iterator[None]:
    """Makes a wrapped network the float one for a while."""
    if not is_wrapped(model):
        yield
        return
    storage = getattr(model, ATR_HOOK_STORAGE)
    setattr(model, ATR_HOOK_STORAGE, HookStorage())
    try:
        yield
    finally:
        setattr(model, ATR_HOOK_STORAGE, storage)


def _note_input(calls: Calls) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]:
    def note(module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        calls.inputs[module].append(first_argument(arguments, named))

    return note


class TracedModel(GraphModelWrapper):
    """NNCF's wrapper, whose graph also takes parameters inside tuples: Swin2SR joins its biases in one."""

    @torch.no_grad()
    def build_graph(self) -> PTNNCFGraph:
        model, example = self.model, self.example_input
        arguments, named = ((), example) if isinstance(example, dict) else (example, {})
        wrapped = is_wrapped(model)
        storage = getattr(model, ATR_HOOK_STORAGE) if wrapped else HookStorage()
        forward = model.forward.orig_forward if wrapped else model.forward
        inputs = arguments if isinstance(arguments, tuple) else (arguments,)
        with training_mode_switcher(model, is_training=False), _GraphBuilder(model, storage) as builder:
            inputs, named = builder.process_model_inputs(inputs, named)
            builder.process_model_outputs(forward(*inputs, **named))
        return convert_to_nncf_graph(builder.graph)


class _GraphBuilder(GraphBuilderMode):
    """NNCF's own, which looks for parameters among an operation's arguments and in lists, but connects those in tuples."""

    def register_op_input_tensor(self, tensor: Tensor, op_node_id: int, port_id: int, op_meta: OpMeta) -> None:
        info = self.tensor_info.get(tensor)
        if info is not None and info.source_node_id is None:
            self.execute_hooks_for_parameter(tensor)
        super().register_op_input_tensor(tensor, op_node_id, port_id, op_meta)


class _Recorder(FunctionHookMode):
    """NNCF's own mode, so that the names are NNCF's, without any hook."""

    def __init__(self, model: nn.Module, calls: Calls) -> None:
        super().__init__(model, HookStorage())
        self.calls = calls

    def execute_pre_hooks(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], op_meta: OpMeta
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        arguments: list[Any] = []
        # lists of tensors take a port for each, as NNCF numbers them
        for value in (*args, *kwargs.values()):
            tensors = isinstance(value, list | tuple) and all(isinstance(entry, Tensor) for entry in value)
            arguments.extend(value if tensors else [value])
        names = [""] * len(args) + list(kwargs)
        stack = tuple(self.module_call_stack)
        self.calls.operations.append(Call(op_meta.op_name, op_meta.func, stack, arguments, names))
        return super().execute_pre_hooks(args, kwargs, op_meta)

"""Finds the residual blocks and attentions of a network by running it once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from qsci_plugins.schemes.attention import is_product
from qsci_plugins.schemes.placement import first_argument

__all__ = ["AttentionSite", "BlockSite", "NetworkSites", "find_sites"]

_ADDITIONS = frozenset({torch.add, Tensor.add, Tensor.add_, Tensor.__add__, Tensor.__iadd__, Tensor.__radd__})
_SCALINGS = {
    torch.mul: False, Tensor.mul: False, Tensor.mul_: False, Tensor.__mul__: False, Tensor.__rmul__: False,
    Tensor.__imul__: False, torch.div: True, Tensor.div: True, Tensor.__truediv__: True,
}  # fmt: skip
_SOFTMAXES = frozenset({F.softmax, torch.softmax, Tensor.softmax})


@dataclass(frozen=True)
class BlockSite:
    """A module that adds a branch to its own input.

    `readers` are the layers that take that input itself; `branch` is the layer whose output (but for a factor) is
    added, None where something else lies between.
    """

    name: str
    readers: tuple[str, ...]
    branch: str | None


@dataclass(frozen=True)
class AttentionSite:
    """A module that computes softmax(q k^T) v: as its products number `scores` and `context`, or in one `fused` call.

    Operands are (..., heads, tokens, d); `query_scale` and `key_scale` are the factors that the module applied to them.
    """

    name: str
    heads: int
    key_heads: int
    scores: int = 0
    context: int = 1
    fused: bool = False
    query_scale: float = 1.0
    key_scale: float = 1.0


@dataclass
class NetworkSites:
    """All residual blocks and attentions of a network, by module name, in the order of their first run."""

    blocks: dict[str, BlockSite] = field(default_factory=dict)
    attentions: dict[str, AttentionSite] = field(default_factory=dict)


@torch.no_grad()
def find_sites(model: nn.Module, example: Tensor | Sequence[Tensor], layers: Collection[str]) -> NetworkSites:
    """Runs `model(example)` (or `model(*example)`), looking at its calls; `layers` are those that readers may be.

    The model is left as it was.
    """
    tracer = _Tracer(set(layers))
    training = {module: module.training for module in model.modules()}
    model.eval()
    with ExitStack() as stack:
        for name, module in model.named_modules():
            before = module.register_forward_pre_hook(tracer.entering(name, module), with_kwargs=True)
            after = module.register_forward_hook(tracer.leaving)
            stack.callback(before.remove)
            stack.callback(after.remove)
        try:
            with tracer:
                model(example) if isinstance(example, Tensor) else model(*example)
        finally:
            for module, was in training.items():
                module.training = was
    return tracer.sites


@dataclass
class _Frame:
    """One module's forward under way."""

    name: str
    transparent: bool
    input: Any
    readers: list[str] = field(default_factory=list)
    products: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    scores: int | None = None


class _Tracer(TorchFunctionMode):
    def __init__(self, layers: set[str]) -> None:
        super().__init__()
        self.layers = layers
        self.sites = NetworkSites()
        self.frames: list[_Frame] = []
        # by identity; the tensors are kept, as a freed one's id comes again
        self.kept: list[Any] = []
        self.origin: dict[int, str] = {}
        self.factor: dict[int, float] = {}

    def entering(self, name: str, module: nn.Module) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]:
        transparent = not any(True for _ in module.children()) and not any(True for _ in module.parameters())

        def enter(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            given = first_argument(args, kwargs)
            self.kept.append(given)
            if name in self.layers:
                for frame in self.frames:
                    if frame.input is given:
                        frame.readers.append(name)
            self.frames.append(_Frame(name, transparent, given))

        return enter

    def leaving(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        frame = self.frames.pop()
        self.kept.append(output)
        if frame.name in self.layers:
            self.origin[id(output)] = frame.name

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if self.frames:
            self._look(func, args, kwargs or {})
        output = func(*args, **(kwargs or {}))
        if func in _SCALINGS and len(args) == 2:
            self._scaled(func, args, output)
        return output

    def _look(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        frame = next((f for f in reversed(self.frames) if not f.transparent), self.frames[0])
        if func in _ADDITIONS and len(args) == 2:
            self._addition(frame, args)
        elif is_product(func, args):
            self.kept.append(args)
            if frame.scores is not None and frame.name not in self.sites.attentions:
                query, key = frame.products[frame.scores]
                self._attention(frame.name, query, key, scores=frame.scores, context=len(frame.products))
            frame.products.append((args[0], args[1]))
        elif func in _SOFTMAXES and frame.products and frame.scores is None:
            frame.scores = len(frame.products) - 1
        elif func is F.scaled_dot_product_attention and frame.name not in self.sites.attentions:
            query, key = (*args, *(kwargs[name] for name in ("query", "key") if name in kwargs))[:2]
            self._attention(frame.name, query, key, fused=True)

    def _addition(self, frame: _Frame, args: tuple[Any, ...]) -> None:
        if frame.name in self.sites.blocks or not frame.readers:
            return
        for skip, branch in (args, args[::-1]):
            if skip is frame.input:
                origin = self.origin.get(id(branch))
                self.sites.blocks[frame.name] = BlockSite(frame.name, tuple(dict.fromkeys(frame.readers)), origin)
                return

    def _attention(self, name: str, query: Tensor, key: Tensor, **settings: Any) -> None:
        self.sites.attentions[name] = AttentionSite(
            name,
            heads=query.shape[-3] if query.dim() > 3 else 1,
            key_heads=key.shape[-3] if key.dim() > 3 else 1,
            query_scale=self.factor.get(id(query), 1.0),
            key_scale=self.factor.get(id(key), 1.0),
            **settings,
        )

    def _scaled(self, func: Callable[..., Any], args: tuple[Any, ...], output: Any) -> None:
        tensor, factor = args if isinstance(args[0], Tensor) else args[::-1]
        if isinstance(factor, Tensor) and factor.numel() == 1:
            factor = factor.item()
        if not isinstance(factor, int | float):
            return
        self.kept.append(output)
        self.factor[id(output)] = 1 / factor if _SCALINGS[func] else float(factor)
        if id(tensor) in self.origin:
            self.origin[id(output)] = self.origin[id(tensor)]

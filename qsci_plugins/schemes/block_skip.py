"""Block skipping: residual blocks that smooth images do without, in which the skip connection alone carries on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch._C import DisableTorchFunction
from torch.func import functional_call

from qsci_plugins.schemes.bit_width import skipped_samples
from qsci_plugins.schemes.content import current_content
from qsci_plugins.schemes.placement import first_argument, with_first_argument

__all__ = ["LOWEST_FACTOR", "attach_skips", "choose_blocks", "detach_skips", "residual_blocks"]

#: the image factor of the images that skip blocks
LOWEST_FACTOR = -1


@torch.no_grad()
def residual_blocks(model: nn.Module, inputs: tuple[Tensor, ...], patterns: Sequence[str] = ("*",)) -> list[str]:
    """Names of the modules matching `patterns` that add a branch to their input, in the order of `named_modules`.

    Such a module is called once in a forward of `inputs`, returns one tensor of its first argument's shape, and with
    zeros for all of its weights and biases returns that argument itself. Of modules inside each other the inner ones
    are taken.
    """
    calls: dict[str, list[tuple[tuple[Any, ...], dict[str, Any], Any]]] = {}
    handles = []
    for name, module in model.named_modules():
        if any(fnmatchcase(name, pattern) for pattern in patterns) and any(_weights(module)):

            def note(module: nn.Module, args: Any, kwargs: Any, output: Any, name: str = name) -> None:
                calls.setdefault(name, []).append((args, kwargs, output))

            handles.append(module.register_forward_hook(note, with_kwargs=True))
    try:
        model(*(tensor.clone() for tensor in inputs))
    finally:
        for handle in handles:
            handle.remove()
    found = [
        name
        for name, module in model.named_modules()
        if len(calls.get(name, ())) == 1 and _adds_its_input(module, *calls[name][0])
    ]
    return [name for name in found if not any(other.startswith(f"{name}.") for other in found)]


def _adds_its_input(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> bool:
    x = first_argument(args, kwargs)
    if not isinstance(x, Tensor) or not isinstance(output, Tensor) or output.shape != x.shape:
        return False
    zeros = {name: torch.zeros_like(parameter) for name, parameter in _weights(module)}
    result = functional_call(module, zeros, *with_first_argument(args, kwargs, x.clone()))
    return isinstance(result, Tensor) and torch.equal(result, x)


def _weights(module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """The weights and biases of layers, without the parameters of quantizers and of activation functions."""
    for name, parameter in module.named_parameters():
        owner = module.get_submodule(name.rpartition(".")[0])
        if name.rpartition(".")[2] in ("weight", "bias") and not isinstance(owner, nn.PReLU):
            yield name, parameter


@torch.no_grad()
def choose_blocks(
    model: nn.Module,
    blocks: Sequence[str],
    count: int,
    inputs: tuple[Tensor, ...],
    on_step: Callable[[int, int], None] = lambda done, total: None,
) -> list[str]:
    """The `count` of `blocks` that change the output for `inputs` least if they are left out, in the order of the network.

    Blocks are given up one by one: each time what every remaining block costs (mean squared difference of the output) is
    measured on top of those that are gone. Two blocks that cost little alone, as the other makes up for it, stay.
    """
    expected = model(*(tensor.clone() for tensor in inputs))
    gone: list[str] = []
    while len(gone) < count:
        costs = {}
        for name in blocks:
            if name not in gone:
                with _without(model, [*gone, name]):
                    output = model(*(tensor.clone() for tensor in inputs))
                costs[name] = (output - expected).square().mean().item()
        gone.append(min(costs, key=lambda name: costs[name]))
        on_step(len(gone), count)
    return [name for name in blocks if name in gone]


@contextmanager
def _without(model: nn.Module, names: Sequence[str]) -> Iterator[None]:
    """The model with blocks that return their input, for any image."""
    modules = [model.get_submodule(name) for name in names]
    before = [module.__dict__.get("forward") for module in modules]
    for module in modules:
        module.forward = _first  # type: ignore[method-assign]
    try:
        yield
    finally:
        for module, forward in zip(modules, before, strict=True):
            del module.forward
            if forward is not None:
                module.forward = forward


def _first(*args: Any, **kwargs: Any) -> Any:
    return first_argument(args, kwargs)


def attach_skips(model: nn.Module, names: Sequence[str]) -> None:
    """Has the named blocks return their input for the images of the lowest image factor; nothing where they do so already.

    Their layers then note 0 bits for these images.
    """
    for name in names:
        block = model.get_submodule(name)
        if _begin not in block._forward_pre_hooks.values():
            block.register_forward_pre_hook(_begin)
            block.register_forward_hook(_end, always_call=True, with_kwargs=True)


def detach_skips(model: nn.Module) -> None:
    """Takes back what `attach_skips` did, in every block of the model."""
    for module in model.modules():
        for hooks in (module._forward_pre_hooks, module._forward_hooks):
            for key in [key for key, hook in hooks.items() if hook in (_begin, _end)]:
                del hooks[key]
                module._forward_hooks_always_called.pop(key, None)
                module._forward_hooks_with_kwargs.pop(key, None)


# Functions of the module, which copies of a network share and pickles find: what they need is the forward's content.


def _begin(block: nn.Module, args: tuple[Any, ...]) -> None:
    content = current_content()
    if content is None or content.image_factor is None:
        return
    with DisableTorchFunction():  # NNCF's graph must not show these operations
        skipped_samples.set(content.image_factor.detach() < LOWEST_FACTOR + 0.5)


def _end(block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> Tensor:
    skipped = skipped_samples.get()
    skipped_samples.set(None)
    if skipped is None:
        return output
    with DisableTorchFunction():
        return torch.where(skipped.reshape(-1, *[1] * (output.dim() - 1)), first_argument(args, kwargs), output)

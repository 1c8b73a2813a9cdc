"""Which layers of a network are quantized, by name patterns; the network itself is never edited."""

from __future__ import annotations

import copy
import difflib
import glob
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from qsci_plugins.errors import UserError

__all__ = [
    "Placement",
    "Precision",
    "called_layers",
    "copy_folded",
    "first_argument",
    "leave_float",
    "place",
    "place_called",
    "with_first_argument",
]

#: "scheme": the scheme's own bits; "eight_bit": 8 static bits, not counted in FAB
Precision = Literal["scheme", "eight_bit"]

_QUANTIZABLE = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


@dataclass(frozen=True)
class Placement:
    """Patterns (`*`, `?`, `[...]`) of module names. `float_` wins over `eight_bit`, which wins over `targets`.

    >>> import qsci_plugins
    >>> from qsci_plugins.schemes.placement import place
    >>> model = qsci_plugins.load_network("edsr", None, 2, blocks=1, width=8).module
    >>> placement = qsci_plugins.Placement(targets=("body.*",), eight_bit=("head.*",))
    >>> place(model, placement)["head.0"], place(model, placement)["body.0.body.0"]
    ('eight_bit', 'scheme')
    """

    targets: tuple[str, ...] = ("*",)
    eight_bit: tuple[str, ...] = ()
    float_: tuple[str, ...] = field(default=())


def place(model: nn.Module, placement: Placement) -> dict[str, Precision]:
    """The precision of every convolution and linear layer that is quantized, by module name, in the model's order.

    Raises UserError for a pattern that matches nothing (naming the nearest layers) and where no layer is left.
    """
    names = [
        name for name, module in model.named_modules() if isinstance(module, _QUANTIZABLE) and module.weight is not None
    ]
    for key, patterns in (
        ("targets", placement.targets),
        ("eight_bit", placement.eight_bit),
        ("float", placement.float_),
    ):
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for name in names):
                near = difflib.get_close_matches(pattern.replace("*", ""), names, 3, 0.0) or names[:3]
                raise UserError(
                    f"place.{key}: no convolution or linear layer is named {pattern!r}; the nearest are {', '.join(near)}"
                )
    precisions: dict[str, Precision] = {}
    for name in names:
        if any(fnmatchcase(name, pattern) for pattern in placement.float_):
            continue
        if any(fnmatchcase(name, pattern) for pattern in placement.eight_bit):
            precisions[name] = "eight_bit"
        elif any(fnmatchcase(name, pattern) for pattern in placement.targets):
            precisions[name] = "scheme"
    if not precisions:
        raise UserError("place: every layer is left in float; name some in place.targets or place.eight_bit")
    return precisions


def called_layers(model: nn.Module, example: Tensor | Sequence[Tensor]) -> dict[str, bool]:
    """The convolutions and linear layers that `model(example)` (or `model(*example)`) calls, in this order, by module name:
    whether what they read depends on the example.

    Others have a part in training alone, or their weight is used by code of another module; quantizers of theirs would
    never see a tensor. What reads no image, such as a table of relative positions, an exporter computes once: in float
    it costs nothing. Quantized, OpenVINO runs it while it compiles, and with several streams with another result each
    time. The model and the example are left as they were.
    """
    inputs = [example] if isinstance(example, Tensor) else list(example)
    others = [
        0.75 * tensor + 0.1 * tensor.abs().max().clamp_min(1) if tensor.is_floating_point() else tensor
        for tensor in inputs
    ]
    first, second = _read_by_layers(model, inputs), _read_by_layers(model, others)
    return {
        name: len(read) != len(second.get(name, ())) or not all(map(torch.equal, read, second[name]))
        for name, read in first.items()
    }


def first_argument(arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
    """What a layer or a block reads, of the arguments of its call (see hooks `with_kwargs`); None of a call without any."""
    return next(iter((*arguments, *named.values())), None)


def with_first_argument(
    arguments: tuple[Any, ...], named: dict[str, Any], x: Any
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a call that has any, with x as what `first_argument` finds."""
    if arguments:
        return (x, *arguments[1:]), named
    return arguments, {**named, next(iter(named)): x}


@torch.no_grad()
def _read_by_layers(model: nn.Module, example: Sequence[Tensor]) -> dict[str, list[Tensor]]:
    """What every layer that is called reads at each call: number, sum and sum of squares of its values, (3,)."""
    read: dict[str, list[Tensor]] = {}
    training = {module: module.training for module in model.modules()}

    def note(name: str, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        values: Tensor = first_argument(arguments, named).double()
        count = values.new_full((), values.numel())
        read.setdefault(name, []).append(torch.stack([count, values.sum(), values.square().sum()]))

    model.eval()
    with ExitStack() as stack:
        for name, module in model.named_modules():
            if isinstance(module, _QUANTIZABLE):
                handle = module.register_forward_pre_hook(
                    lambda _, arguments, named, name=name: note(name, arguments, named), with_kwargs=True
                )
                stack.callback(handle.remove)
        try:
            model(*(tensor.clone() for tensor in example))
        finally:
            for module, was in training.items():
                module.training = was
    return read


def leave_float(placement: Placement, names: Iterable[str]) -> Placement:
    """The same placement with these layers left in float."""
    return replace(placement, float_=(*placement.float_, *(glob.escape(name) for name in names)))


def place_called(model: nn.Module, placement: Placement, example: Tensor | Sequence[Tensor]) -> Placement:
    """The same placement without the layers that the network does not call, and those that read no input of it."""
    precisions = place(model, placement)
    called = called_layers(model, example)
    return leave_float(placement, [name for name in precisions if not called.get(name)])


#: the older form of both norms: a hook that sets the weight ahead of every forward
_REMOVERS: dict[type[Any], Any] = {WeightNorm: remove_weight_norm, SpectralNorm: remove_spectral_norm}


def copy_folded(model: nn.Module) -> nn.Module:
    """A deep copy that computes the same in eval mode, every weight a parameter of its own.

    `model` may hold weight_norm and spectral_norm as hooks, or any parametrization of torch.nn.utils.parametrize.
    """
    for module in model.modules():
        for hook in _norms(module):
            # left by the last forward with its history, which cannot be copied; the next one sets it anew
            weight = getattr(module, hook.name, None)
            if isinstance(weight, Tensor):
                setattr(module, hook.name, weight.detach())
    copied = copy.deepcopy(model)
    for module in list(copied.modules()):
        training, module.training = module.training, False  # in training mode spectral norm would move on
        for hook in _norms(module):
            _REMOVERS[type(hook)](module, hook.name)
        if parametrize.is_parametrized(module):
            _fold(module)
        module.training = training
    return copied


def _fold(module: nn.Module) -> None:
    """As remove_parametrizations, which would take the weight from the class that the original shares."""
    names = list(module.parametrizations)  # type: ignore[arg-type]
    values = {name: getattr(module, name).detach() for name in names}
    del module.parametrizations
    module.__class__ = type(module).__bases__[0]
    for name, value in values.items():
        module.register_parameter(name, nn.Parameter(value))


def _norms(module: nn.Module) -> list[Any]:
    return [hook for hook in module._forward_pre_hooks.values() if type(hook) in _REMOVERS]

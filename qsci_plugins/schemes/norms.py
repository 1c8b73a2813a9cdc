"""Weight norm and spectral norm folded into the weights they compute: a quantizer needs a weight that is a parameter."""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor, nn
from torch.nn.utils import parametrize, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

__all__ = ["copy_folded"]

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

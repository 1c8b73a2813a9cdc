"""Optimizer groups of a quantized network, in which every quantizer moves in proportion to its own size."""

from __future__ import annotations

from typing import Any

from torch import nn

from qsci_plugins.schemes.attention import ShiftedQuantizer
from qsci_plugins.schemes.lsq import LearnedStepActivation
from qsci_plugins.schemes.quantizer import Quantizer
from qsci_plugins.schemes.scheme import QuantizedNetwork

__all__ = ["relative_groups"]

#: of a level, which a zero point moves by where a step moves by all of itself
_LEVELS = 4.0


def relative_groups(network: QuantizedNetwork, quantizer_rate: float) -> list[dict[str, Any]]:
    """Groups {params, lr} of a calibrated network; `lr` is a factor of the weights' rate.

    Adam moves every parameter by about its rate, whatever its gradient: 1 is the factor of weights and biases,
    `quantizer_rate` times its mean size that of a step or a range; zero points move in levels, shifts of queries and
    keys in their quantizer's steps.
    """
    factors: dict[int, float] = {}
    for module in network.model.modules():
        if isinstance(module, ShiftedQuantizer) and module.shift is not None:
            factors[id(module.shift)] = _LEVELS * _step(module.quantizer)
        if not isinstance(module, Quantizer):
            continue
        for name, parameter in module.named_parameters():
            size = float(parameter.detach().abs().mean()) or 1.0
            factors[id(parameter)] = _LEVELS if name == "zero_point" else size
    groups: dict[float, list[nn.Parameter]] = {}
    for parameter in network.model.parameters():
        if parameter.requires_grad:
            own = factors.get(id(parameter))
            groups.setdefault(1.0 if own is None else quantizer_rate * own, []).append(parameter)
    return [{"params": parameters, "lr": factor} for factor, parameters in groups.items()]


def _step(quantizer: Quantizer) -> float:
    if isinstance(quantizer, LearnedStepActivation):
        return float(quantizer.step.detach().abs().mean())
    return 1.0

"""The parameters of a quantized network by what they are, each with the size that a learning rate relates to."""

from __future__ import annotations

from enum import Enum
from typing import Any

import torch
from torch import nn

from qsci_plugins.schemes.attention import ShiftedQuantizer
from qsci_plugins.schemes.lsq import LearnedStepActivation
from qsci_plugins.schemes.quantizer import Quantizer
from qsci_plugins.schemes.scheme import QuantizedNetwork
from qsci_plugins.training.settings import FineTuning

__all__ = ["Role", "parameter_groups", "relative_groups", "scale_rates"]


class Role(Enum):
    """What a parameter does."""

    WEIGHT = "weight"
    WEIGHT_RANGE = "weight range"
    ACTIVATION_RANGE = "activation range"
    IMAGE_MAPPING = "image mapping"
    LAYER_MAPPING = "layer mapping"
    MAPPING = "mapping"

    def members(self) -> tuple[Role, ...]:
        """The roles that move together in one of AdaBM's turns."""
        return (Role.IMAGE_MAPPING, Role.LAYER_MAPPING) if self is Role.MAPPING else (self,)


def parameter_groups(network: QuantizedNetwork) -> list[dict[str, Any]]:
    """Groups {params, role, size}. `size` is the quantization step for weights and their ranges, the range for activations.

    Weights are those of quantized layers alone, with their biases.
    """
    groups: list[dict[str, Any]] = []

    def add(parameters: list[nn.Parameter], role: Role, size: float = 1.0) -> None:
        if parameters:
            groups.append({"params": parameters, "role": role, "size": size})

    def add_activation(quantizer: Quantizer) -> None:
        mapping = getattr(quantizer, "bit_width", None)
        mapped = list(mapping.parameters()) if isinstance(mapping, nn.Module) else []
        own = [p for p in quantizer.parameters() if all(p is not other for other in mapped)]
        size = max((float(p.detach().abs().max()) for p in own), default=1.0)
        add(own, Role.ACTIVATION_RANGE, size)
        add(mapped, Role.LAYER_MAPPING)

    seen: set[int] = set()
    for name, layer in network.layers.items():
        module = network.model.get_submodule(name)
        if layer.weight is not None:
            weight = module.weight
            assert isinstance(weight, torch.Tensor)
            step = float(layer.weight.qparams(weight).scale.detach().mean())
            add([p for p in (module.weight, module.bias) if isinstance(p, nn.Parameter)], Role.WEIGHT, step)
            add(list(layer.weight.parameters()), Role.WEIGHT_RANGE, step)
        for quantizer in (layer.activation, layer.output):
            if quantizer is not None and id(quantizer) not in seen:
                seen.add(id(quantizer))
                add_activation(quantizer)
    for quantizer in [*network.blocks.values(), *(q for site in network.attentions.values() for q in site)]:
        add_activation(quantizer)
    if network.input_module is not None:
        add(list(network.input_module.parameters()), Role.IMAGE_MAPPING)
    return groups


def scale_rates(groups: list[dict[str, Any]], settings: FineTuning) -> None:
    """Gives groups their `lr` in fine-tuning: their size (a step, a range) times the relative rate, or the published one."""
    if settings.schedule == "published":
        absolute = {
            Role.WEIGHT_RANGE: settings.published_range_rate,
            Role.ACTIVATION_RANGE: settings.published_range_rate,
            Role.IMAGE_MAPPING: settings.published_image_rate,
            Role.LAYER_MAPPING: settings.published_layer_rate,
        }
        groups[:] = [g for g in groups if g["role"] in absolute]
        for group in groups:
            group["lr"] = absolute[group["role"]]
            del group["size"]
        return
    relative = {
        Role.WEIGHT: settings.weight_rate,
        Role.WEIGHT_RANGE: settings.step_rate,
        Role.ACTIVATION_RANGE: settings.range_rate,
    }
    groups[:] = [g for g in groups if g["role"] in relative]
    for group in groups:
        group["lr"] = relative[group["role"]] * group.pop("size")


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

"""The schemes as Brevitas quantizers: take one where a Brevitas layer takes an `input_quant` or a `weight_quant`."""

from __future__ import annotations

from typing import Any

from brevitas.inject import ExtendedInjector, value
from brevitas.quant.base import IntQuant, NarrowIntQuant, PerChannelFloatScaling8bit, PerTensorFloatScaling8bit
from brevitas.quant.solver import ActQuantSolver, WeightQuantSolver
from torch import nn

from qsci_plugins.brevitas.layers import QuantConv1d, QuantConv2d, QuantConv3d, QuantLinear
from qsci_plugins.brevitas.tensor_quant import (
    SchemeActProxy,
    SchemeActTensorQuant,
    SchemeTensorQuant,
    SchemeWeightProxy,
)
from qsci_plugins.schemes.placement import Precision
from qsci_plugins.schemes.quantizer import Quantizer
from qsci_plugins.schemes.registry import make_scheme
from qsci_plugins.schemes.scheme import Scheme, module_device

__all__ = [
    "AdaBMAct",
    "AdaBMWeight",
    "CADyQAct",
    "CADyQWeight",
    "QSCIAct",
    "QSCIWeight",
    "SchemeActQuant",
    "SchemeWeightQuant",
    "layer_map",
]


class SchemeActQuant(IntQuant, PerTensorFloatScaling8bit, ActQuantSolver):
    """A layer's activation quantizer out of the slot `scheme`, made for the layer that it is given to."""

    proxy_class = SchemeActProxy
    tensor_quant = SchemeActTensorQuant
    precision = "scheme"

    @value
    def quantizer(scheme: Scheme, precision: Precision, module: nn.Module) -> Quantizer | None:  # noqa: N805
        return _beside(module, scheme.layer(module, precision).activation)


class SchemeWeightQuant(NarrowIntQuant, PerChannelFloatScaling8bit, WeightQuantSolver):
    """A layer's weight quantizer out of the slot `scheme`, fitted to the layer's weight."""

    proxy_class = SchemeWeightProxy
    tensor_quant = SchemeTensorQuant
    precision = "scheme"

    @value
    def quantizer(scheme: Scheme, precision: Precision, module: nn.Module) -> Quantizer | None:  # noqa: N805
        return _beside(module, scheme.layer(module, precision).weight)


class _AdaBM(ExtendedInjector):
    weight_bits = 4
    activation_bits = 4
    form = "integer"

    @value
    def scheme(weight_bits: int, activation_bits: int, form: str) -> Scheme:  # noqa: N805
        return _scheme("adabm", weight_bits=weight_bits, activation_bits=activation_bits, form=form)


class _CADyQ(ExtendedInjector):
    candidates = (4, 6, 8)
    weight_bits = 8
    form = "integer"

    @value
    def scheme(candidates: tuple[int, ...], weight_bits: int, form: str) -> Scheme:  # noqa: N805
        return _scheme("cadyq", candidates=tuple(candidates), weight_bits=weight_bits, form=form)


class _QSCI(ExtendedInjector):
    weight_bits = 4
    activation_bits = 4
    form = "integer"

    @value
    def scheme(weight_bits: int, activation_bits: int, form: str) -> Scheme:  # noqa: N805
        return _scheme("qsci", weight_bits=weight_bits, activation_bits=activation_bits, form=form)


class AdaBMAct(_AdaBM, SchemeActQuant):
    """AdaBM's learned range at image- and layer-dependent bits, as `QuantConv2d(..., input_quant=AdaBMAct)`."""


class AdaBMWeight(_AdaBM, SchemeWeightQuant):
    """AdaBM's learned symmetric weights; `weight_weight_bits=8` in a layer's arguments changes the bits."""


class CADyQAct(_CADyQ, SchemeActQuant):
    """CADyQ's bit selector; `input_candidates=(2, 4, 8)` in a layer's arguments changes the candidates."""


class CADyQWeight(_CADyQ, SchemeWeightQuant):
    """CADyQ's max-abs weights."""


class QSCIAct(_QSCI, SchemeActQuant):
    """Q-SCI's learned step and zero point; `input_activation_bits=3` in a layer's arguments changes the bits."""


class QSCIWeight(_QSCI, SchemeWeightQuant):
    """Q-SCI's learned step for each output channel."""


def _beside(module: nn.Module, quantizer: Quantizer | None) -> Quantizer | None:
    return None if quantizer is None else quantizer.to(module_device(module))


def _scheme(name: str, **settings: Any) -> Scheme:
    return make_scheme({"name": name, **settings})


def layer_map(scheme: Scheme, precision: Precision = "scheme") -> dict[type[nn.Module], Any]:
    """What `brevitas.graph.quantize.layerwise_quantize(model, layer_map(scheme), name_blacklist=[...])` takes.

    Convolutions and linear layers get the scheme's quantizers for their input and weight. Call `attach_scheme` on the
    result before it runs. `precision` "eight_bit" gives the scheme's fixed 8-bit quantizers.
    """
    settings = {
        "input_quant": SchemeActQuant.let(scheme=scheme, precision=precision),
        "weight_quant": SchemeWeightQuant.let(scheme=scheme, precision=precision),
    }
    return {
        nn.Conv1d: (QuantConv1d, settings),
        nn.Conv2d: (QuantConv2d, settings),
        nn.Conv3d: (QuantConv3d, settings),
        nn.Linear: (QuantLinear, settings),
    }

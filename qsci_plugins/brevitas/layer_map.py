"""A scheme as a layer map for Brevitas' layerwise_quantize."""

from __future__ import annotations

from typing import Any

from torch import nn

from qsci_plugins.brevitas.layers import QuantConv1d, QuantConv2d, QuantConv3d, QuantLinear
from qsci_plugins.brevitas.quantizers import SchemeActQuant, SchemeWeightQuant
from qsci_plugins.schemes.placement import Precision
from qsci_plugins.schemes.scheme import Scheme

__all__ = ["layer_map"]


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

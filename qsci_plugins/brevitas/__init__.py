"""The schemes in Brevitas: quantizers, layers, a layer map, and the backend that quantizes, saves and loads networks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import qsci_plugins.brevitas.quiet  # noqa: F401 - ahead of everything that imports brevitas
from qsci_plugins.brevitas.attention import ShiftedScaledDotProductAttention
from qsci_plugins.brevitas.backend import apply, load, quantize, save
from qsci_plugins.brevitas.layers import QuantConv1d, QuantConv2d, QuantConv3d, QuantLinear
from qsci_plugins.brevitas.network import attach_scheme, network
from qsci_plugins.brevitas.quantizers import (
    AdaBMAct,
    AdaBMWeight,
    CADyQAct,
    CADyQWeight,
    QSCIAct,
    QSCIWeight,
    SchemeActQuant,
    SchemeWeightQuant,
    layer_map,
)

if TYPE_CHECKING:  # mypy compares the module with the protocol
    from qsci_plugins.brevitas import backend
    from qsci_plugins.schemes.backend import Backend

    _BACKEND: Backend = backend

__all__ = [
    "AdaBMAct",
    "AdaBMWeight",
    "CADyQAct",
    "CADyQWeight",
    "QSCIAct",
    "QSCIWeight",
    "QuantConv1d",
    "QuantConv2d",
    "QuantConv3d",
    "QuantLinear",
    "SchemeActQuant",
    "SchemeWeightQuant",
    "ShiftedScaledDotProductAttention",
    "apply",
    "attach_scheme",
    "layer_map",
    "load",
    "network",
    "quantize",
    "save",
]

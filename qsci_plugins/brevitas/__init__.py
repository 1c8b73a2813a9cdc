"""The schemes in Brevitas: quantizers, layers, a layer map, and the backend that quantizes, saves and loads networks."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

import qsci_plugins.brevitas.quiet
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

if find_spec("onnx") is not None:
    # Brevitas' own exporters know our proxies from here on
    import qsci_plugins.brevitas.onnx  # noqa: F401

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

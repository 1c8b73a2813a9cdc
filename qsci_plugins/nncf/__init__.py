"""The schemes as NNCF algorithms and hooks: for NNCF's own pipeline, and the backend that recipes use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qsci_plugins.extras import missing_extra

try:
    from qsci_plugins.nncf.algorithm import AdaBMQuantization, CADyQQuantization, QSCIQuantization, SchemeQuantization
    from qsci_plugins.nncf.backend import apply, default_int8, load, quantize, save
    from qsci_plugins.nncf.hooks import bits_per_layer, network
    from qsci_plugins.nncf.placement import all_but
except ModuleNotFoundError as error:
    raise missing_extra(error, "nncf") from None

if TYPE_CHECKING:  # mypy compares the module with the protocol
    from qsci_plugins.nncf import backend
    from qsci_plugins.schemes.backend import Backend

    _BACKEND: Backend = backend

__all__ = [
    "AdaBMQuantization",
    "CADyQQuantization",
    "QSCIQuantization",
    "SchemeQuantization",
    "all_but",
    "apply",
    "bits_per_layer",
    "default_int8",
    "load",
    "network",
    "quantize",
    "save",
]

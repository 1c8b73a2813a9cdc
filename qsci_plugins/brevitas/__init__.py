"""The schemes in Brevitas: quantizers, layers, a layer map, and one call each that quantizes, saves and loads networks.

What Brevitas' users expect and do not find here, and why:

- Layers return plain tensors, and `return_quant_tensor=True` is no use: a QuantTensor holds one scale and bit-width, and
  ours may have one for each sample. Brevitas' convolutions would read a scale of N samples as one of N channels.
- `bias_quant` stays None, as a quantized bias needs the input's scale, which a plain tensor does not carry.
- AdaBM with image factors, and CADyQ, need the network's input measured: `attach_scheme(model, scheme)` behind
  `layerwise_quantize`. They have no ONNX form; `qsci_plugins.export` writes them for OpenVINO.
- What a quantizer learned survives Brevitas' re-initialisations, except that a new weight is fitted anew.
- weight_norm and spectral_norm are folded by `quantize` and `apply`; ahead of `layerwise_quantize` do so yourself
  (`qsci_plugins.schemes.placement.copy_folded`).
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from qsci_plugins.extras import missing_extra

try:
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
except ModuleNotFoundError as error:
    raise missing_extra(error, "brevitas") from None

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

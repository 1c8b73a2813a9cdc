"""Quantized layers that stand in for a stock network's: plain tensors in and out, the bias in float."""

from __future__ import annotations

from typing import Any

import brevitas.nn as qnn
from torch import nn

__all__ = ["QuantConv1d", "QuantConv2d", "QuantConv3d", "QuantLinear", "layer_class"]


class _BesideWeight(nn.Module):
    """Has its quantizers follow where a layer's weight goes: Brevitas makes a layer on the CPU, and then hands it the
    parameters of the float one, which may be on a GPU.
    """

    weight: nn.Parameter

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        for child in self.children():
            child.to(self.weight.device)


# Brevitas builds a layer whose constructor takes a `device` on the meta device, where no weight quantizer can be
# fitted; so these name all their arguments but that one.


class _QuantConv(_BesideWeight):
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, ...],
        stride: int | tuple[int, ...] = 1,
        padding: int | str | tuple[int, ...] = 0,
        dilation: int | tuple[int, ...] = 1,
        groups: int = 1,
        padding_mode: str = "zeros",
        bias: bool = True,
        weight_quant: Any = None,
        input_quant: Any = None,
        output_quant: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(  # type: ignore[call-arg]
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            padding_mode,
            bias,
            weight_quant=weight_quant,
            bias_quant=None,
            input_quant=input_quant,
            output_quant=output_quant,
            return_quant_tensor=False,
            **kwargs,
        )


class QuantConv1d(_QuantConv, qnn.QuantConv1d):
    """(N,C,L) -> (N,C',L')."""


class QuantConv2d(_QuantConv, qnn.QuantConv2d):
    """(N,C,H,W) -> (N,C',H',W')."""


class QuantConv3d(_QuantConv, qnn.QuantConv3d):
    """(N,C,T,H,W) -> (N,C',T',H',W')."""


class QuantLinear(_BesideWeight, qnn.QuantLinear):
    """(...,C) -> (...,C')."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        weight_quant: Any = None,
        input_quant: Any = None,
        output_quant: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            in_features,
            out_features,
            bias,
            weight_quant=weight_quant,
            bias_quant=None,
            input_quant=input_quant,
            output_quant=output_quant,
            return_quant_tensor=False,
            **kwargs,
        )


_LAYERS: dict[type[nn.Module], type[nn.Module]] = {
    nn.Conv1d: QuantConv1d,
    nn.Conv2d: QuantConv2d,
    nn.Conv3d: QuantConv3d,
    nn.Linear: QuantLinear,
}


def layer_class(module: nn.Module) -> type[nn.Module]:
    """The quantized class for a stock layer, of its class or one derived from it; TypeError for any other module."""
    for stock, quantized in _LAYERS.items():
        if isinstance(module, stock):
            return quantized
    raise TypeError(f"{type(module).__name__} has no quantized counterpart")

"""AdaBM (Hong and Lee, CVPR 2024, arXiv 2404.03296): bits per image and layer, mapped after training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import nn

from qsci_plugins.schemes.activation import RangeActivation
from qsci_plugins.schemes.bit_width import BitWidth, ImageToBit, MappedBitWidth, StaticBitWidth
from qsci_plugins.schemes.image_grid import ImageGridActivation
from qsci_plugins.schemes.placement import Precision
from qsci_plugins.schemes.scheme import LayerQuantizers, Scheme, SchemeConfig
from qsci_plugins.schemes.weight import ChannelWeight, TensorWeight

__all__ = ["AdaBM", "AdaBMConfig"]


class AdaBMConfig(SchemeConfig):
    """Bits of a layer for an image = activation_bits + image factor + layer factor, each factor in {-1,0,1}."""

    name: Literal["adabm"] = "adabm"
    weight_bits: int = Field(4, ge=2, le=8)
    activation_bits: int = Field(4, ge=2, le=8)
    #: "integer" runs in INT8 hardware; "faithful" is what the published code computes
    form: Literal["integer", "faithful"] = "integer"
    #: percentile of calibration gradients below (and, mirrored, above) which an image loses (gains) a bit
    image_percentile: float = Field(10.0, ge=0, lt=50)
    #: percentile over layers of the feature deviation below (above) which a layer loses (gains) a bit
    layer_percentile: float = Field(30.0, ge=0, lt=50)
    #: how far bit-aware clipping moves a range towards the one with the least squared error
    clipping: float = Field(0.5, ge=0, le=1)
    #: switch either mapping off: without the image part the bits are static, a mixed precision per layer
    image_mapping: bool = True
    layer_mapping: bool = True


class AdaBM(Scheme):
    """Makes AdaBM's quantizers; `after_observation` sets the layer factors."""

    Config: ClassVar[type[SchemeConfig]] = AdaBMConfig
    refines: ClassVar[bool] = True
    config: AdaBMConfig

    def layer(self, module: nn.Module, precision: Precision) -> LayerQuantizers:
        config = self.config
        integer = config.form == "integer"
        adaptive = precision == "scheme"
        bit_width: BitWidth
        if adaptive:
            bit_width = MappedBitWidth(config.activation_bits, limits=(2, 8) if integer else None)
        else:
            bit_width = StaticBitWidth(8)
        weight = module.weight
        assert isinstance(weight, torch.Tensor)
        weight_bits = config.weight_bits if adaptive else 8
        activation: RangeActivation
        if integer and not adaptive and getattr(module, "in_channels", 0) in (1, 3):
            activation = ImageGridActivation(int(module.in_channels), clipping=config.clipping)  # type: ignore[arg-type]
        else:
            clipping = config.clipping if integer or adaptive else 0.0
            activation = RangeActivation(bit_width, integer=integer, clipping=clipping)
        return LayerQuantizers(
            activation=activation,
            weight=ChannelWeight(weight, weight_bits)
            if integer
            else TensorWeight(weight, weight_bits, search_bits=config.weight_bits),
            counted=adaptive,
        )

    def input_module(self, value_range: float) -> nn.Module | None:
        return ImageToBit(value_range, self.config.image_percentile) if self.config.image_mapping else None

    @torch.no_grad()
    def after_observation(self, layers: Mapping[str, LayerQuantizers]) -> None:
        """Layer factor -1, 0 or +1 by the percentiles of the mean feature deviation over layers."""
        mapped = [
            q.activation
            for q in layers.values()
            if isinstance(q.activation, RangeActivation) and isinstance(q.activation.bit_width, MappedBitWidth)
        ]
        if not mapped or not self.config.layer_mapping:
            return
        deviations = torch.stack([activation.feature_std for activation in mapped])
        share = self.config.layer_percentile / 100
        lower, upper = torch.quantile(deviations, torch.tensor([share, 1 - share], device=deviations.device))
        for activation, deviation in zip(mapped, deviations, strict=True):
            factor = float(deviation > upper) - float(deviation < lower)
            activation.bit_width.measure.fill_(factor)  # type: ignore[union-attr, operator]

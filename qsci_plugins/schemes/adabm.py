"""AdaBM (Hong and Lee, CVPR 2024, arXiv 2404.03296): bits per image and layer, mapped after training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, Literal

import torch
from pydantic import Field, ValidationInfo, field_validator
from torch import Tensor, nn

from qsci_plugins.errors import UserError
from qsci_plugins.schemes.activation import ImageGridActivation, RangeActivation
from qsci_plugins.schemes.bit_width import BitWidth, ImageToBit, MappedBitWidth, StaticBitWidth
from qsci_plugins.schemes.block_skip import attach_skips, choose_blocks, residual_blocks
from qsci_plugins.schemes.placement import Placement, Precision
from qsci_plugins.schemes.quantizer import Mode
from qsci_plugins.schemes.reconstruction import reconstruct_weights
from qsci_plugins.schemes.scheme import (
    LayerQuantizers,
    Plan,
    QuantizedNetwork,
    Scheme,
    SchemeConfig,
    inputs_of,
    module_device,
    refine_pass,
    set_mode,
)
from qsci_plugins.schemes.weight import ChannelWeight, TensorWeight

__all__ = ["AdaBM", "AdaBMConfig", "allocate_layer_factors"]

#: images of the first batch that a layer's share of the output error is measured on
_IMAGES = 4

#: images of the first batch that a block's is measured on
_SKIPPING = 2


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
    #: how far bit-aware clipping moves a range towards the one with the least squared error; None: 0.5 as published,
    #: but in integer form all the way where bits are few and rounding dominates, and 0.25 at 8 bits
    clipping: float | None = Field(None, ge=0, le=1)
    #: integer form: mean over layers of the bits of an average image; layer factors are then chosen by what they cost the
    #: output, instead of by percentiles
    mean_bits: float | None = Field(None, ge=1, le=8)
    #: integer form: round weights so that their errors cancel on calibration images. Better off where fine-tuning follows:
    #: from weights that lie on the grid already, it does not find as good ones
    reconstruct_weights: bool = True
    #: integer form: biases take up the mean error of the rounded weights on calibration images
    bias_correction: bool = True
    #: integer form: 8-bit activations that reach below 0 get an integer zero point that fits their range, instead of as many
    #: levels below 0 as above
    asymmetric: bool = True
    #: integer form: a weight step for each output channel, instead of one for the tensor
    channel_weights: bool = True
    #: switch either mapping off: without the image part the bits are static, a mixed precision per layer
    image_mapping: bool = True
    layer_mapping: bool = True
    #: integer form: share of the residual blocks that images below the lower threshold skip, 0 bits, those that cost
    #: their output least; so much time is saved on smooth images. It needs no image mapping
    skip_share: float = Field(0.0, ge=0, le=1)
    #: patterns of the names of modules that may be skipped, of which those count that add a branch to their input
    skip_blocks: list[str] = Field(["*"], min_length=1)

    @field_validator("skip_share")
    @classmethod
    def _in_integers(cls, share: float, given: ValidationInfo) -> float:
        if share and given.data.get("form") == "faithful":
            raise ValueError("the published form skips no blocks; take form: integer, or leave it out")
        return share


class AdaBM(Scheme):
    """Makes AdaBM's quantizers; `after_observation` sets the layer factors."""

    Config: ClassVar[type[SchemeConfig]] = AdaBMConfig
    refines: ClassVar[bool] = True
    config: AdaBMConfig

    @property
    def base_bits(self) -> float:
        return float(self.config.activation_bits)

    def layer(self, module: nn.Module, precision: Precision) -> LayerQuantizers:
        config = self.config
        adaptive = precision == "scheme"
        weight = module.weight
        assert isinstance(weight, torch.Tensor)
        weight_bits = config.weight_bits if adaptive else 8
        if config.form == "faithful":
            clipping = (0.5 if config.clipping is None else config.clipping) if adaptive else 0.0
            return LayerQuantizers(
                RangeActivation(self._bit_width(adaptive), integer=False, clipping=clipping),
                TensorWeight(weight, weight_bits, search_bits=config.weight_bits),
                counted=adaptive,
            )
        few = adaptive and config.activation_bits <= 4
        usual = 0.25 if config.activation_bits == 8 else 1.0 if few else 0.5
        clipping = usual if config.clipping is None else config.clipping
        activation: RangeActivation
        static = config.activation_bits == 8 and not config.image_mapping and not config.layer_mapping
        if (static or not adaptive) and getattr(module, "in_channels", 0) in (1, 3):
            channels = int(module.in_channels)  # type: ignore[arg-type]
            activation = ImageGridActivation(channels, clipping=clipping, asymmetric=config.asymmetric)
        else:
            activation = RangeActivation(
                self._bit_width(adaptive), integer=True, clipping=clipping, asymmetric=config.asymmetric
            )
        return LayerQuantizers(
            activation, ChannelWeight(weight, weight_bits, per_channel=config.channel_weights), counted=adaptive
        )

    def _bit_width(self, adaptive: bool) -> BitWidth:
        if not adaptive:
            return StaticBitWidth(8)
        limits = (2, 8) if self.config.form == "integer" else None
        return MappedBitWidth(self.config.activation_bits, limits, self.config.image_mapping)

    def input_module(self, value_range: float) -> nn.Module | None:
        routed = self.config.image_mapping or self.skips_blocks
        return ImageToBit(value_range, self.config.image_percentile) if routed else None

    @property
    def batch_images(self) -> int:
        return 2 * _IMAGES if self.config.form == "integer" else 1

    @property
    def thresholds_follow_size(self) -> bool:
        return self.config.form == "integer"

    @property
    def skips_blocks(self) -> bool:
        return self.config.skip_share > 0

    def static(self) -> AdaBM:
        """8 bits for every image and layer, with ranges and weight steps alone fitted."""
        off = dict.fromkeys(("image_mapping", "layer_mapping", "reconstruct_weights", "bias_correction"), False)
        return AdaBM(AdaBMConfig.model_validate({"weight_bits": 8, "activation_bits": 8, **off}))

    @torch.no_grad()
    def after_observation(self, layers: Mapping[str, LayerQuantizers]) -> None:
        """Layer factor -1, 0 or +1 by the percentiles of the mean feature deviation over layers."""
        mapped = _mapped(layers)
        if not mapped or not self.config.layer_mapping:
            return
        deviations = torch.stack([activation.feature_std for activation, _ in mapped])
        share = self.config.layer_percentile / 100
        lower, upper = torch.quantile(deviations, torch.tensor([share, 1 - share], device=deviations.device))
        factors = (deviations > upper).to(deviations.dtype) - (deviations < lower).to(deviations.dtype)
        for (_, mapping), factor in zip(mapped, factors, strict=True):
            mapping.measure.copy_(factor)

    @torch.no_grad()
    def complete(self, network: QuantizedNetwork, inputs: tuple[Tensor, ...]) -> None:
        """Bit-aware clipping; in integer form also the allocation of bits, and the rounding of weights."""
        config = self.config
        mapped = _mapped(network.layers)
        if config.form == "faithful":
            refine_pass(network, inputs)
            return
        few = tuple(tensor[:_IMAGES] for tensor in inputs)
        if config.mean_bits is not None and config.layer_mapping and mapped:
            observed = [(a.lower.clone(), a.upper.clone()) for a, _ in mapped]
            refine_pass(network, inputs)
            set_mode(network.quantizers(), Mode.OFF)
            expected = network.model(*few)
            set_mode(network.quantizers(), Mode.ON)
            allocate_layer_factors(
                [mapping for _, mapping in mapped],
                lambda: (network.model(*few) - expected).square().mean(),
                config.mean_bits,
            )
            # ranges are fitted anew, at the bits that the layers have now
            for (activation, _), (lower, upper) in zip(mapped, observed, strict=True):
                activation.lower.copy_(lower)
                activation.upper.copy_(upper)
        refine_pass(network, inputs)
        if config.reconstruct_weights or config.bias_correction:
            more = tuple(tensor[: 2 * _IMAGES] for tensor in inputs)
            reconstruct_weights(
                network.model,
                network.layers,
                lambda: network.model(*more),
                rounding=config.reconstruct_weights,
                bias=config.bias_correction,
                on_layer=lambda done, total: self.on_progress("Weight rounding", done, total),
            )
        if self.skips_blocks:
            self._skip_blocks(network, inputs)

    def plan(self, model: nn.Module, placement: Placement, example: Tensor | Sequence[Tensor]) -> Plan:
        plan = super().plan(model, placement, example)
        if self.skips_blocks:  # refused before calibration
            self._skippable(model, inputs_of(example, module_device(model)))
        return plan

    def _skippable(self, model: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[list[str], int]:
        """The blocks that may be skipped, and how many are to be. Raises UserError where that is none."""
        share, patterns = self.config.skip_share, self.config.skip_blocks
        blocks = residual_blocks(model, tuple(tensor[:1] for tensor in inputs), patterns)
        count = round(share * len(blocks))
        if not count:
            raise UserError(
                f"scheme.skip_share: {share:g} of the {len(blocks)} residual blocks that match {', '.join(patterns)} is"
                " none; name more in scheme.skip_blocks, or raise the share"
            )
        return blocks, count

    def _skip_blocks(self, network: QuantizedNetwork, inputs: tuple[Tensor, ...]) -> None:
        """Chooses the blocks that images of the lowest factor skip from here on: those that cost the busiest of them least."""
        images = network.input_module
        assert isinstance(images, ImageToBit)
        blocks, count = self._skippable(network.model, inputs)
        gradient = images.reduce(inputs[0])
        below = max(_SKIPPING, int((gradient < images.lower).sum()))
        chosen_images = gradient.argsort()[below - _SKIPPING : below]
        smooth = tuple(tensor[chosen_images] for tensor in inputs)
        chosen = choose_blocks(
            network.model, blocks, count, smooth, lambda done, total: self.on_progress("Block skipping", done, total)
        )
        images.skipped = tuple(chosen)
        attach_skips(network.model, chosen)


def _mapped(layers: Mapping[str, LayerQuantizers]) -> list[tuple[RangeActivation, MappedBitWidth]]:
    """The activations whose bits are mapped, with their mappings."""
    found = []
    for quantizers in layers.values():
        activation = quantizers.activation
        if isinstance(activation, RangeActivation) and isinstance(activation.bit_width, MappedBitWidth):
            found.append((activation, activation.bit_width))
    return found


@torch.no_grad()
def allocate_layer_factors(
    mappings: Sequence[MappedBitWidth], error: Callable[[], Tensor], mean_bits: float
) -> list[int]:
    """Sets every layer factor to -1, 0 or +1, so that the mean over layers of base + factor is at most `mean_bits`.

    `error()` is the output error of the network as it stands. Each layer is measured one bit down and one bit up with all
    others at factor 0; then all start at -1, and the steps that win back most error are taken while bits are left.
    Returns the factors. `mean_bits` below base - 1 gives -1 everywhere: no factor goes further.
    """

    def error_with(mapping: MappedBitWidth, factor: int) -> Tensor:
        mapping.measure.fill_(factor)
        value = error()
        mapping.measure.fill_(0)
        return value

    for mapping in mappings:
        mapping.measure.fill_(0)
    errors = [error(), *(error_with(mapping, factor) for factor in (-1, +1) for mapping in mappings)]
    neutral, *changed = torch.stack(errors).tolist()  # read at once: a GPU is not waited for between them
    to_zero = [value - neutral for value in changed[: len(mappings)]]
    to_one = [neutral - value for value in changed[len(mappings) :]]
    factors = [-1] * len(mappings)
    # the step from -1 to 0 comes before the one from 0 to 1, so it is worth at least as much
    gains = [(max(first, second), i) for i, (first, second) in enumerate(zip(to_zero, to_one, strict=True))]
    gains += [(second, i) for i, second in enumerate(to_one)]
    base = sum(float(mapping.base) for mapping in mappings)
    for _, i in sorted(gains, key=lambda gain: (-gain[0], gain[1])):
        if base + sum(factors) + 1 > mean_bits * len(mappings) + 1e-6:
            break
        factors[i] += 1
    for mapping, factor in zip(mappings, factors, strict=True):
        mapping.measure.fill_(factor)
    return factors

"""CADyQ (Hong et al., ECCV 2022, arXiv 2207.10345): a bit selector for every layer and patch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field, field_validator
from torch import Tensor, nn

from qsci_plugins.errors import UserError
from qsci_plugins.schemes.bit_selector import BitSelector
from qsci_plugins.schemes.content import ImageContent
from qsci_plugins.schemes.pams import MaxWeight, SymmetricActivation
from qsci_plugins.schemes.placement import Placement, Precision, place
from qsci_plugins.schemes.scheme import LayerQuantizers, Plan, Scheme, SchemeConfig
from qsci_plugins.schemes.sites import find_sites

__all__ = ["CADyQ", "CADyQConfig", "StaticCADyQ", "channel_axis", "input_channels"]


class CADyQConfig(SchemeConfig):
    """Each layer's activation gets one of the candidate bit-widths, for every sample anew."""

    name: Literal["cadyq"] = "cadyq"
    candidates: tuple[int, ...] = Field((4, 6, 8), strict=False)
    weight_bits: int = Field(8, ge=2, le=8)
    #: "integer" runs in INT8 hardware; "faithful" is what the published code computes
    form: Literal["integer", "faithful"] = "integer"
    #: quantize each residual block's skip with its first layer's input, and its branch at 8 bits before they are added;
    #: unset: as published in `faithful`, left in float in `integer`
    quantize_skip: bool | None = None

    @field_validator("candidates")
    @classmethod
    def _candidates_in_range(cls, candidates: tuple[int, ...]) -> tuple[int, ...]:
        if not candidates or list(candidates) != sorted(set(candidates)):
            raise ValueError("candidates are different bit-widths, the smallest first, such as [4, 6, 8]")
        if not all(2 <= bits <= 8 for bits in candidates):
            raise ValueError("candidates are bit-widths from 2 to 8; INT8 hardware runs no wider ones")
        return candidates


class CADyQ(Scheme):
    """Makes bit selectors for the scheme's layers, and fixed 8-bit quantizers for the others."""

    Config: ClassVar[type[SchemeConfig]] = CADyQConfig
    config: CADyQConfig

    @property
    def possible_bits(self) -> tuple[int, ...]:
        return self.config.candidates

    def layer(self, module: nn.Module, precision: Precision) -> LayerQuantizers:
        config = self.config
        integer = config.form == "integer"
        selected = precision == "scheme"
        return LayerQuantizers(
            activation=self.selector(module) if selected else SymmetricActivation((8,), integer=integer),
            weight=MaxWeight(config.weight_bits if selected else 8, per_channel=integer),
            counted=selected,
        )

    def selector(self, module: nn.Module) -> BitSelector:
        """A new selector for the input of a layer."""
        return BitSelector(
            input_channels(module),
            self.config.candidates,
            integer=self.config.form == "integer",
            channel_axis=channel_axis(module),
        )

    def plan(self, model: nn.Module, placement: Placement, example: Tensor | Sequence[Tensor]) -> Plan:
        """As published, a block's first selector sits on the block's input, so that the skip is quantized too."""
        plan = super().plan(model, placement, example)
        config = self.config
        if not (config.form == "faithful" if config.quantize_skip is None else config.quantize_skip):
            return plan
        selected = [name for name, kind in place(model, placement).items() if kind == "scheme"]
        blocks = find_sites(model, example, selected).blocks
        if config.quantize_skip and not blocks:
            raise UserError(
                "scheme.quantize_skip: no module of this network adds its own input to a branch of the placed layers;"
                " set quantize_skip: false, or place.targets to the layers of its residual blocks"
            )
        for name, block in blocks.items():
            for reader in block.readers:
                plan.layers[reader].activation = None
            plan.blocks[name] = self.selector(model.get_submodule(block.readers[0]))
            if block.branch is not None:
                plan.layers[block.branch].output = SymmetricActivation((8,), integer=config.form == "integer")
        return plan

    def input_module(self, value_range: float) -> nn.Module | None:
        return ImageContent(value_range)

    def static(self) -> StaticCADyQ:
        """PAMS at 8 bits in the place of every selector."""
        return StaticCADyQ(CADyQConfig.model_validate({"candidates": (8,), "quantize_skip": False}))


class StaticCADyQ(CADyQ):
    """PAMS: each layer has one symmetric 8-bit range and looks at no image."""

    def layer(self, module: nn.Module, precision: Precision) -> LayerQuantizers:
        return LayerQuantizers(
            activation=SymmetricActivation((8,), integer=True),
            weight=MaxWeight(8, per_channel=True),
            counted=precision == "scheme",
        )

    def input_module(self, value_range: float) -> nn.Module | None:
        return None

    def static(self) -> StaticCADyQ:
        """Itself."""
        return self


def input_channels(module: nn.Module) -> int:
    """How many channels a convolution or linear layer takes."""
    channels = module.in_features if isinstance(module, nn.Linear) else module.in_channels
    assert isinstance(channels, int)
    return channels


def channel_axis(module: nn.Module) -> int:
    """Where the channels of a layer's input are: the last axis of a linear layer's, axis 1 of a convolution's."""
    return -1 if isinstance(module, nn.Linear) else 1

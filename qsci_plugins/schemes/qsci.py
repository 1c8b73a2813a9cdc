"""Q-SCI (Cao et al., ECCV 2024, arXiv 2407.21517): learned steps everywhere, and shifted queries and keys."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from qsci_plugins.errors import UserError
from qsci_plugins.schemes.attention import AttentionQuantizers, ShiftedQuantizer
from qsci_plugins.schemes.cadyq import channel_axis, input_channels
from qsci_plugins.schemes.lsq import LearnedStepActivation, LearnedStepWeight
from qsci_plugins.schemes.placement import Placement, Precision
from qsci_plugins.schemes.scheme import LayerQuantizers, Plan, Scheme, SchemeConfig
from qsci_plugins.schemes.sites import AttentionSite, find_sites

__all__ = ["QSCI", "QSCIConfig"]


class QSCIConfig(SchemeConfig):
    """The same bits for weights and activations of every placed layer, unless said otherwise."""

    name: Literal["qsci"] = "qsci"
    weight_bits: int = Field(4, ge=2, le=8)
    activation_bits: int = Field(4, ge=2, le=8)
    #: "integer" runs in INT8 hardware; "faithful" is what the published code computes
    form: Literal["integer", "faithful"] = "integer"
    #: patterns of the attention modules whose products are quantized; [] for a network without attention
    attention: tuple[str, ...] = Field(("*",), strict=False)
    #: learn a shift of queries and keys ahead of their quantizers
    shift: bool = True
    #: "learned" asks for an integer zero point; "auto" has one below 8 bits, where it fits INT8
    zero_point: Literal["auto", "learned"] = "auto"


class QSCI(Scheme):
    """Makes LSQ+ quantizers; in the published form their first values come from the first batch that reaches them."""

    Config: ClassVar[type[SchemeConfig]] = QSCIConfig
    refines: ClassVar[bool] = True
    config: QSCIConfig

    def __init__(self, config: SchemeConfig) -> None:
        super().__init__(config)
        c = self.config
        if c.form == "integer" and c.zero_point == "learned" and c.activation_bits == 8:
            raise UserError(
                "scheme.zero_point: 8-bit activations with a zero point do not fit int8; use activation_bits 7 or less,"
                " zero_point: auto (levels -128..127 or 0..255), or form: faithful"
            )

    @property
    def base_bits(self) -> float:
        return float(self.config.activation_bits)

    def layer(self, module: nn.Module, precision: Precision) -> LayerQuantizers:
        config = self.config
        integer = config.form == "integer"
        scheme = precision == "scheme"
        weight = module.weight
        assert isinstance(weight, Tensor)
        quantizer = LearnedStepWeight(weight.shape[0], weight.dim(), config.weight_bits if scheme else 8)
        return LayerQuantizers(
            activation=LearnedStepActivation(
                config.activation_bits if scheme else 8,
                channels=1 if integer else input_channels(module),
                axis=channel_axis(module),
                integer=integer,
            ),
            weight=quantizer.start(weight, search=integer),
            counted=scheme,
        )

    def static(self) -> QSCI:
        """8 bits everywhere, the same attentions among them, and no shift."""
        return QSCI(QSCIConfig(weight_bits=8, activation_bits=8, shift=False, attention=self.config.attention))

    def attention(self, site: AttentionSite) -> AttentionQuantizers:
        """New quantizers for the products of an attention; shifts start at 0."""
        shift = self.config.shift
        return AttentionQuantizers(
            query=ShiftedQuantizer(self._operand(site.heads), site.heads if shift else 0, site.query_scale),
            key=ShiftedQuantizer(self._operand(site.key_heads), site.key_heads if shift else 0, site.key_scale),
            value=self._operand(site.key_heads),
            map=self._operand(site.heads),
            scores=site.scores,
            context=site.context,
            fused=site.fused,
        )

    def _operand(self, heads: int) -> LearnedStepActivation:
        integer = self.config.form == "integer"
        return LearnedStepActivation(
            self.config.activation_bits, channels=1 if integer else heads, axis=-3, integer=integer
        )

    def plan(self, model: nn.Module, placement: Placement, example: Tensor | Sequence[Tensor]) -> Plan:
        """Layers, and the attentions that `attention` names; UserError for a pattern that names none."""
        plan = super().plan(model, placement, example)
        if not self.config.attention:
            return plan
        sites = find_sites(model, example, plan.layers).attentions
        if not sites:
            raise UserError(
                "scheme.attention: this network has no attention (softmax(q k^T) v) to quantize;"
                " set scheme.attention to [] to quantize its layers alone"
            )
        for pattern in self.config.attention:
            named = [name for name in sites if fnmatchcase(name, pattern)]
            if not named:
                near = difflib.get_close_matches(pattern.replace("*", ""), sites, 3, 0.0)
                raise UserError(
                    f"scheme.attention: no attention is named {pattern!r}; the nearest are {', '.join(near)}"
                )
            for name in named:
                plan.attentions.setdefault(name, self.attention(sites[name]))
        return plan

"""Our quantizers as Brevitas knows quantizers: a `tensor_quant` behind a proxy."""

from __future__ import annotations

from typing import Any

import torch
from brevitas import config
from brevitas.proxy.parameter_quant import WeightQuantProxyFromInjector
from brevitas.proxy.runtime_quant import ActQuantProxyFromInjector
from torch import Tensor, nn

from qsci_plugins.schemes.content import set_content
from qsci_plugins.schemes.quantizer import Mode, QParams, Quantizer

__all__ = [
    "Keeping",
    "SchemeActProxy",
    "SchemeActTensorQuant",
    "SchemeTensorQuant",
    "SchemeWeightProxy",
    "static_params",
]


class Keeping(nn.Module):
    """Keeps its own values where a float checkpoint has none, which Brevitas announces by config.IGNORE_MISSING_KEYS."""

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        if config.IGNORE_MISSING_KEYS:
            for name, value in (*self.named_parameters(), *self.named_buffers()):
                state_dict.setdefault(prefix + name, value)
        super()._load_from_state_dict(state_dict, prefix, *args)


class SchemeTensorQuant(Keeping):
    """x -> (y, scale, zero_point, bit_width), the zero point as counted from the lowest level."""

    def __init__(self, quantizer: nn.Module) -> None:
        super().__init__()
        assert isinstance(quantizer, Quantizer)
        self.quantizer: Quantizer = quantizer

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        p = self.quantizer.qparams(x)
        zero_point = -p.low if p.offset is None else -p.offset / p.scale
        return self.quantizer(x), p.scale, zero_point, p.bit_width


class SchemeActTensorQuant(SchemeTensorQuant):
    """Of an activation. Brevitas' calibration_mode finds what it looks for: `observer_only` makes the quantizer observe,
    and `init_scale` sets its parameters from what it saw.
    """

    @property
    def observer_only(self) -> bool:
        return self.quantizer.mode is Mode.OBSERVE

    @observer_only.setter
    def observer_only(self, observing: bool) -> None:
        self.quantizer.mode = Mode.OBSERVE if observing else Mode.ON

    def init_scale(self) -> None:
        self.quantizer.initialise()


@torch.no_grad()
def static_params(quantizer: Quantizer, like: Tensor) -> QParams:
    """What quantizes any x alike; for a bit-width that depends on the image, that of an average image."""
    set_content(None)
    return quantizer.qparams(like)


class _PlainTensors:
    """Returns plain tensors: a quant tensor cannot carry one bit-width per sample, and corrupts silently if made to."""

    is_quant_enabled: bool

    def params(self) -> QParams | None:
        raise TypeError

    def create_quant_tensor(self, qt_args: Any, x: Any = None) -> Tensor:
        return qt_args[0] if isinstance(qt_args, tuple) else qt_args

    def scale(self, force_eval: bool = True) -> Tensor | None:
        p = self.params()
        return None if p is None else p.scale

    def zero_point(self, force_eval: bool = True) -> Tensor | None:
        p = self.params()
        return None if p is None else -p.low

    def bit_width(self, force_eval: bool = True) -> Tensor | None:
        p = self.params()
        return None if p is None else p.bit_width

    @property
    def input_view_impl(self) -> nn.Module:
        return nn.Identity()


class SchemeActProxy(_PlainTensors, ActQuantProxyFromInjector):
    """Runs an activation quantizer, which survives every re-initialisation: what it learned is not in the weights."""

    def init_tensor_quant(self) -> None:
        if getattr(self, "fused_activation_quant_proxy", None) is None:
            super().init_tensor_quant()
            shift = self.quant_injector.shift if "shift" in self.quant_injector else None
            if shift is not None:
                # here, and not inside the quantizer, it outlives an export and quantization that is switched off
                self.fused_activation_quant_proxy.activation_impl = shift

    @property
    def quantizer(self) -> Quantizer:
        return self.fused_activation_quant_proxy.tensor_quant.quantizer

    def params(self) -> QParams | None:
        if not self.is_quant_enabled:
            return None
        # one dimension more than any scale of ours needs
        return static_params(self.quantizer, torch.zeros(1, 1, 1, 1, device=self.quantizer.calibrated.device))

    def forward(self, x: Tensor) -> Tensor:
        fused = self.fused_activation_quant_proxy
        if fused is None:
            return x
        x = fused.activation_impl(x)
        if not self.is_quant_enabled:
            return x
        if self.export_mode:
            return self.export_handler(x)[0]
        return fused.tensor_quant.quantizer(x)


class SchemeWeightProxy(_PlainTensors, WeightQuantProxyFromInjector):
    """Runs a weight quantizer, which is fitted anew, in place, whenever Brevitas hands it another weight.

    calibration_mode switches weight quantizers off; one that takes statistics is shown its weight at the end of it.
    """

    def init_tensor_quant(self, preserve_state_dict: bool = False) -> None:
        current = self.tensor_quant
        weights = self.tracked_parameter_list
        if current is None:
            super().init_tensor_quant()
        elif weights and not preserve_state_dict:
            # the injector of a copied model still names the layer that it was copied from
            self.update_tracked_modules()
            fresh = self.quant_injector.let(tracked_parameter_list=weights).tensor_quant
            with torch.no_grad():
                for mine, new in zip(_tensors(current), _tensors(fresh), strict=True):
                    mine.copy_(new)

    @property
    def quantizer(self) -> Quantizer:
        assert isinstance(self.tensor_quant, SchemeTensorQuant)
        return self.tensor_quant.quantizer

    @torch.no_grad()
    def init_scale(self) -> None:
        if self.tensor_quant is not None:
            quantizer = self.quantizer
            quantizer.update(quantizer.reduce(self.tracked_parameter_list[0]))
            quantizer.initialise()

    def params(self) -> QParams | None:
        return static_params(self.quantizer, self.tracked_parameter_list[0]) if self.is_quant_enabled else None

    def forward(self, x: Tensor) -> Tensor:
        if not self.is_quant_enabled:
            return x
        if self.export_mode:
            return self.export_handler(x)[0]
        return self.quantizer(x)


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]

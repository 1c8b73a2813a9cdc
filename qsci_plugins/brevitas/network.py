"""What a quantized network remembers of its scheme, and how it is found again in any copy of it."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from typing import Any

import torch
from brevitas.nn.quant_layer import QuantWeightBiasInputOutputLayer
from torch import Tensor, nn

from qsci_plugins.brevitas.attention import ProxiedAttention
from qsci_plugins.brevitas.tensor_quant import Keeping, SchemeActProxy, SchemeWeightProxy
from qsci_plugins.errors import UserError
from qsci_plugins.schemes import attention
from qsci_plugins.schemes.content import set_content
from qsci_plugins.schemes.placement import Precision
from qsci_plugins.schemes.quantizer import Quantizer
from qsci_plugins.schemes.registry import make_scheme
from qsci_plugins.schemes.scheme import (
    CHILD,
    LayerQuantizers,
    QuantizedNetwork,
    Scheme,
    complete_observation,
    module_device,
    note_batch_images,
)

__all__ = ["SchemeRecord", "attach_scheme", "network"]

#: the name under which a network holds its record
_CHILD = "qsci_scheme"

#: what stands behind a quantized layer
_PLAIN: tuple[type[Any], ...] = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


class SchemeRecord(Keeping):
    """The scheme's settings, and its input module, which sees every network input.

    As the last child of the network it also ends a calibration: Brevitas' calibration_mode announces its begin through
    `collect_stats_steps` and its end through `init_scale`, module by module.
    """

    def __init__(
        self,
        model: nn.Module,
        settings: Mapping[str, Any],
        value_range: float,
        precisions: Mapping[str, Precision],
        images: nn.Module | None,
    ) -> None:
        super().__init__()
        self.settings = dict(settings)
        self.value_range = value_range
        self.precisions = dict(precisions)
        self.images = images
        # in a list, as no module may be its own descendant; a copy of the network has its own
        self._network = [model]
        self._collecting = False

    def forward(self, image: Tensor) -> Tensor:
        if self._collecting:
            note_batch_images(network(self._network[0]), len(image))
            self._collecting = False
        if self.images is None:
            set_content(None)
            return image
        return self.images(image)

    @property
    def collect_stats_steps(self) -> int:
        return 0

    @collect_stats_steps.setter
    def collect_stats_steps(self, steps: int) -> None:
        self._collecting = True
        self._observe_images(True)

    def init_scale(self) -> None:
        self._observe_images(False)
        quantized = network(self._network[0])
        complete_observation(quantized)

    def _observe_images(self, observing: bool) -> None:
        if hasattr(self.images, "observing"):
            self.images.observing = observing  # type: ignore[union-attr]


def attach_scheme(
    model: nn.Module, scheme: Scheme, value_range: float = 255.0, precisions: Mapping[str, Precision] | None = None
) -> QuantizedNetwork:
    """Completes a model whose layers carry the scheme's quantizers: from here on it measures its inputs.

    What `layerwise_quantize` with a `layer_map` leaves to be done. `value_range` is that of the inputs, 0..value_range.
    """
    record = SchemeRecord(
        model,
        scheme.config.model_dump(mode="json"),
        value_range,
        precisions or {name: "scheme" for name, _ in _layers(model)},
        scheme.input_module(value_range),
    )
    model.add_module(_CHILD, record.to(module_device(model)))
    model.register_forward_pre_hook(_measure)
    return network(model, scheme)


def network(model: nn.Module, scheme: Scheme | None = None) -> QuantizedNetwork:
    """The quantizers of a network, or of a copy of it; the result shares everything with `model`.

    Raises UserError for a model that no scheme of ours was attached to.
    """
    record = getattr(model, _CHILD, None)
    if not isinstance(record, SchemeRecord):
        raise UserError(
            "this network has no quantizers of qsci_plugins; quantize it, or call attach_scheme on it first"
        )
    layers = {}
    for name, module in _layers(model):
        layers[name] = LayerQuantizers(
            _quantizer(module.input_quant),
            _quantizer(module.weight_quant),
            _quantizer(module.output_quant),
            counted=record.precisions.get(name, "scheme") == "scheme",
        )
    blocks: dict[str, Quantizer] = {}
    attentions = {}
    for name, module in model.named_modules():
        if hasattr(module, CHILD):
            blocks[name] = getattr(module, CHILD).act_quant.quantizer
        held = getattr(module, attention.CHILD, None)
        if isinstance(held, ProxiedAttention):
            attentions[name] = held.quantizers()
    return QuantizedNetwork(
        model,
        "brevitas",
        scheme or make_scheme(record.settings),
        layers,
        record.images,
        record.value_range,
        blocks=blocks,
        attentions=attentions,
        float_form=lambda: float_form(model),
        foreign=tuple(_foreign(model)),
    )


@torch.no_grad()
def float_form(model: nn.Module) -> nn.Module:
    """A copy of a quantized network with plain torch layers in it, and the weights that it has now."""
    copied = copy.deepcopy(model)
    copied._modules.pop(_CHILD, None)
    for _, layer in _layers(copied):
        kind = next(kind for kind in _PLAIN if isinstance(layer, kind))
        settings = {key: getattr(layer, key) for key in kind.__constants__ if hasattr(layer, key)}
        accepted = inspect.signature(kind.__init__).parameters
        arguments = {key: value for key, value in settings.items() if key in accepted}
        plain = kind(**arguments, bias=layer.bias is not None, device=layer.weight.device)
        plain.weight.copy_(layer.weight)
        if layer.bias is not None:
            plain.bias.copy_(layer.bias)
        plain.train(layer.training)
        for parent in list(copied.modules()):
            for key, child in list(parent._modules.items()):
                if child is layer:
                    setattr(parent, key, plain)
    for module in copied.modules():
        for child in (CHILD, attention.CHILD):
            module._modules.pop(child, None)
        for hooks in (module._forward_pre_hooks, module._forward_hooks):
            for key, hook in list(hooks.items()):
                if getattr(hook, "__module__", "").startswith("qsci_plugins."):
                    del hooks[key]
    return copied


def _foreign(model: nn.Module) -> list[str]:
    """Layers with quantizers of Brevitas' own."""
    ours = {name for name, _ in _layers(model)}
    found = []
    for name, module in model.named_modules():
        if isinstance(module, QuantWeightBiasInputOutputLayer) and name not in ours:
            found.append(name)
    return found


def _measure(model: nn.Module, args: tuple[Any, ...]) -> None:
    getattr(model, _CHILD)(args[0])


def _layers(model: nn.Module) -> list[tuple[str, Any]]:
    return [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, QuantWeightBiasInputOutputLayer)
        and (isinstance(module.weight_quant, SchemeWeightProxy) or isinstance(module.input_quant, SchemeActProxy))
    ]


def _quantizer(proxy: nn.Module) -> Quantizer | None:
    """The quantizer behind a proxy; None for a proxy without one, and for Brevitas' own."""
    if isinstance(proxy, SchemeWeightProxy):
        return proxy.quantizer
    if isinstance(proxy, SchemeActProxy) and proxy.fused_activation_quant_proxy is not None:
        return proxy.quantizer
    return None

"""Brevitas as a backend: puts a scheme into a stock network, calibrates it, saves it, loads it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from brevitas import config
from brevitas.graph.base import ModuleToModuleByInstance
from brevitas.graph.calibrate import calibration_mode
from torch import Tensor, nn

from qsci_plugins.brevitas.attention import ProxiedAttention, identity_of
from qsci_plugins.brevitas.layers import layer_class
from qsci_plugins.brevitas.network import attach_scheme
from qsci_plugins.brevitas.quantizers import SchemeActQuant, SchemeWeightQuant
from qsci_plugins.errors import UserError
from qsci_plugins.files import replacing
from qsci_plugins.safe_load import load_without_code
from qsci_plugins.schemes.attention import AttentionQuantizers, attach_attention
from qsci_plugins.schemes.block_skip import attach_skips
from qsci_plugins.schemes.content import InputModule
from qsci_plugins.schemes.placement import Placement, Precision, copy_folded, place, place_called
from qsci_plugins.schemes.quantizer import Quantizer
from qsci_plugins.schemes.registry import describe, make_scheme, rebuild
from qsci_plugins.schemes.scheme import (
    LayerQuantizers,
    Plan,
    QuantizedNetwork,
    Scheme,
    attach_block,
    check_batches,
    first_inputs,
    inputs_of,
    module_device,
)

__all__ = ["apply", "load", "quantize", "save"]

_FORMAT = "qsci_plugins.brevitas/1"


def apply(
    model: nn.Module, scheme: Scheme, placement: Placement, example: Tensor | Sequence[Tensor], value_range: float
) -> QuantizedNetwork:
    """Puts a scheme's quantizers into a copy of a stock network; nothing is calibrated.

    `example` (N,C,H,W) is an input that the network accepts, or all of its inputs; layers that it does not reach stay
    float. Raises UserError where the network
    or the placement does not fit.
    """
    model = _float_copy(model)
    arguments = inputs_of(example, module_device(model))
    placement = place_called(model, placement, arguments)
    precisions = place(model, placement)
    plan = scheme.plan(model, placement, arguments[0] if isinstance(example, Tensor) else arguments)
    return _install(model, scheme, plan, precisions, value_range)


@torch.no_grad()
def quantize(
    model: nn.Module,
    scheme: Scheme,
    placement: Placement,
    batches: Sequence[Tensor | Sequence[Tensor]],
    value_range: float,
) -> QuantizedNetwork:
    """Quantizes a copy of a stock network, calibrated on inputs (N,C,H,W) in 0..value_range by calibration_mode.

    The copy is where the network is; the inputs may be elsewhere, and are moved there batch by batch.
    Raises UserError where the network, the placement or the images do not fit.
    """
    check_batches(batches, value_range)
    arguments = [inputs_of(batch) for batch in batches]
    quantized = apply(model, scheme, placement, [tensor[:1].clone() for tensor in arguments[0]], value_range)
    training = quantized.model.training
    quantized.model.eval()
    with calibration_mode(quantized.model):
        for inputs in arguments:
            # a network may write into its input
            quantized.model(*(tensor.clone() for tensor in inputs_of(inputs, quantized.device)))
    first = first_inputs(arguments, scheme.batch_images)
    scheme.complete(quantized, tuple(tensor.clone() for tensor in inputs_of(first, quantized.device)))
    quantized.model.train(training)
    return quantized


def save(quantized: QuantizedNetwork, file: Path | str) -> None:
    """Writes a calibrated network into one file, which `load` and `torch.load(weights_only=True)` read.

    Raises UserError before calibration, and where the file cannot be written; no half of it is left.
    """
    if not quantized.calibrated():
        raise UserError(f"this network is not calibrated yet, so there is nothing to save to {file}")
    layers = {
        name: {
            "precision": "scheme" if quantizers.counted else "eight_bit",
            "weight": quantizers.weight is not None,
            "activation": _described(quantizers.activation),
            "output": _described(quantizers.output),
        }
        for name, quantizers in quantized.layers.items()
    }
    description = {
        "scheme": quantized.scheme.config.model_dump(mode="json"),
        "value_range": quantized.value_range,
        "layers": layers,
        "blocks": {name: describe(quantizer) for name, quantizer in quantized.blocks.items()},
        "attentions": {name: describe(quantizers) for name, quantizers in quantized.attentions.items()},
        "skipped": list(quantized.skipped),
    }
    content = {
        "format": _FORMAT,
        "config": json.dumps(description),
        "state_dict": quantized.model.state_dict(),
    }
    with replacing(file) as unfinished:
        torch.save(content, unfinished)


def load(model: nn.Module, file: Path | str) -> QuantizedNetwork:
    """The network that `save` wrote, in a copy of the same stock network (whose own weights do not matter).

    Raises UserError for another kind of file, and for another network's.
    """
    content = _read(Path(file))
    description = json.loads(content["config"])
    model = _float_copy(model)
    scheme = make_scheme(description["scheme"])
    stock = dict(model.named_modules())
    needed = [*description["layers"], *description["blocks"], *description["attentions"]]
    if missing := [name for name in needed if name not in stock]:
        raise UserError(f"{file} holds another network's quantizers: this one has no module {missing[0]!r}")
    plan = Plan(
        {
            name: LayerQuantizers(
                _rebuilt(layer["activation"]),
                # a new one of the same kind, whose values are in the state dict
                scheme.layer(stock[name], layer["precision"]).weight if layer["weight"] else None,
                _rebuilt(layer["output"]),
                counted=layer["precision"] == "scheme",
            )
            for name, layer in description["layers"].items()
        },
        {name: cast(Quantizer, rebuild(block)) for name, block in description["blocks"].items()},
        {name: cast(AttentionQuantizers, rebuild(entry)) for name, entry in description["attentions"].items()},
    )
    precisions = {name: layer["precision"] for name, layer in description["layers"].items()}
    quantized = _install(model, scheme, plan, precisions, description["value_range"])
    if isinstance(quantized.input_module, InputModule):
        quantized.input_module.skipped = tuple(description.get("skipped", ()))
        attach_skips(quantized.model, quantized.skipped)
    try:
        quantized.model.load_state_dict(content["state_dict"])
    except RuntimeError as error:
        raise UserError(f"{file} holds another network's quantizers: {error}") from None
    return quantized


def _install(
    model: nn.Module, scheme: Scheme, plan: Plan, precisions: Mapping[str, Precision], value_range: float
) -> QuantizedNetwork:
    device = module_device(model)
    for name, quantizers in plan.layers.items():
        _replace(model, name, scheme, quantizers, precisions[name])
    for name, quantizer in plan.blocks.items():
        block = model.get_submodule(name)
        attach_block(block, identity_of(quantizer).to(module_device(block, device)))
    for name, attention in plan.attentions.items():
        module = model.get_submodule(name)
        attach_attention(module, ProxiedAttention(attention).to(module_device(module, device)))
    return attach_scheme(model, scheme, value_range, precisions)


def _replace(model: nn.Module, name: str, scheme: Scheme, quantizers: LayerQuantizers, precision: Precision) -> None:
    """Swaps a layer for its quantized counterpart wherever the network holds it."""
    stock = model.get_submodule(name)
    frozen = {key for key, parameter in stock.named_parameters() if not parameter.requires_grad}
    weighted = quantizers.weight is not None
    transform = ModuleToModuleByInstance(
        stock,
        layer_class(stock),
        input_quant=_act_quant(quantizers.activation),
        weight_quant=SchemeWeightQuant.let(scheme=scheme, precision=precision) if weighted else None,
        output_quant=_act_quant(quantizers.output),
    )
    before = config.IGNORE_MISSING_KEYS
    config.IGNORE_MISSING_KEYS = True  # a float layer has no quantizers to load
    try:
        quantized = transform.init_new_module(stock, name)
    finally:
        config.IGNORE_MISSING_KEYS = before
    quantized.train(stock.training)
    for key in frozen:
        quantized.get_parameter(key).requires_grad_(False)
    for parent in list(model.modules()):
        # not named_children, which leaves out a second name
        for key, child in list(parent._modules.items()):
            if child is stock:
                setattr(parent, key, quantized)


def _act_quant(quantizer: Quantizer | None) -> type[SchemeActQuant] | None:
    return None if quantizer is None else SchemeActQuant.let(quantizer=quantizer)


def _float_copy(model: nn.Module) -> nn.Module:
    """A copy that quantizers can be put into, after everything that would make that wrong."""
    kinds = {type(module).__module__ for module in model.modules()}
    if any(kind.startswith(("brevitas.", "qsci_plugins.brevitas.")) for kind in kinds):
        raise UserError("this network is quantized already; start from the float network")
    if any(kind.startswith(("nncf.", "qsci_plugins.nncf.")) for kind in kinds):
        raise UserError("this network is quantized by NNCF; start from the float network")
    return copy_folded(model)


def _described(quantizer: Quantizer | None) -> dict[str, Any] | None:
    return None if quantizer is None else describe(quantizer)


def _rebuilt(description: Mapping[str, Any] | None) -> Quantizer | None:
    return None if description is None else cast(Quantizer, rebuild(description))


def _read(file: Path) -> dict[str, Any]:
    content = load_without_code(file)
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise UserError(
            f"{file} was not written by qsci_plugins.brevitas.backend.save; give the checkpoint.pt of a run with"
            " `backend: brevitas`"
        )
    return content

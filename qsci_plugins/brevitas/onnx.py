"""Networks of static bit-widths as ONNX: QCDQ, which OpenVINO and onnxruntime run in integers, and QONNX."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import brevitas.export
import torch
from brevitas.export.onnx.handler import ONNXBaseHandler
from brevitas.export.onnx.qonnx.function import BrevitasQuantOp
from brevitas.export.onnx.qonnx.manager import QONNXManager
from brevitas.export.onnx.standard.qcdq.handler import StdQCDQCastONNXActQuantProxyHandler
from brevitas.export.onnx.standard.qcdq.manager import StdQCDQONNXManager
from torch import Tensor, nn

from qsci_plugins.brevitas.tensor_quant import SchemeActProxy, SchemeWeightProxy
from qsci_plugins.errors import UserError
from qsci_plugins.extras import missing_extra
from qsci_plugins.files import replacing
from qsci_plugins.schemes.activation import ImageGridActivation
from qsci_plugins.schemes.quantizer import QParams
from qsci_plugins.schemes.rounding import int8_bounds
from qsci_plugins.schemes.scheme import QuantizedNetwork, inputs_of

try:
    import onnx

    from qsci_plugins.brevitas.onnx_graph import define_quant, separate_biases
except ModuleNotFoundError as error:
    raise missing_extra(error) from None

__all__ = ["export_qcdq", "export_qonnx"]


def export_qcdq(quantized: QuantizedNetwork, file: Path | str, example: Tensor | Sequence[Tensor]) -> None:
    """Writes the network as standard ONNX: int8 weights, and quantize, clip, dequantize ahead of each layer.

    `example` is an input of the shape that the exported network takes. Raises UserError for bits that depend on the
    input, for a form that integers cannot run, and before calibration.
    """
    _export(quantized, Path(file), example, brevitas.export.export_onnx_qcdq, separate_biases)


def export_qonnx(quantized: QuantizedNetwork, file: Path | str, example: Tensor | Sequence[Tensor]) -> None:
    """Writes the network as QONNX: its `Quant` nodes keep the bit-widths, and are defined in the file by standard ones.

    Any ONNX runtime therefore executes it. Arguments and errors as for `export_qcdq`.
    """
    _export(quantized, Path(file), example, brevitas.export.export_qonnx, define_quant)


def _export(
    quantized: QuantizedNetwork,
    file: Path,
    example: Tensor | Sequence[Tensor],
    exporter: Callable[..., onnx.ModelProto],
    finish: Callable[[onnx.ModelProto], onnx.ModelProto],
) -> None:
    if quantized.backend != "brevitas":
        raise UserError(
            f"ONNX export is for networks quantized by Brevitas, and this one is {quantized.backend}'s; quantize it with"
            " qsci_plugins.brevitas.quantize"
        )
    if not quantized.calibrated():
        raise UserError(f"this network is not calibrated yet, so there is nothing to export to {file}")
    if quantized.input_module is not None:
        raise UserError(
            f"the bit-widths of {quantized.scheme.config.name} depend on the image here, for which ONNX has no form;"
            " switch the image part off (AdaBM: image_mapping: false), or export to OpenVINO"
        )
    if missing := [name for name in ("onnxscript", "onnxoptimizer") if importlib.util.find_spec(name) is None]:
        raise UserError(f"ONNX export needs {' and '.join(missing)}: pip install 'qsci-plugins[onnx]'")
    # a failed export would leave the network itself in export mode
    model = copy.deepcopy(quantized.model).eval()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    arguments = inputs_of(example)
    with replacing(file, suffix=".onnx") as unfinished:
        exporter(
            model,
            args=arguments if len(arguments) > 1 else arguments[0],
            export_path=str(unfinished),
            dynamo=True,
            optimize=True,
            external_data=False,
            keep_initializers_as_inputs=False,
            opset_version=18,
            verbose=False,
        )
        onnx.save(finish(onnx.load(unfinished)), str(unfinished))


def _integer_params(proxy: SchemeActProxy | SchemeWeightProxy) -> tuple[QParams, int, int]:
    """The parameters of a proxy, its lowest and its highest integer."""
    p = proxy.params()
    assert p is not None
    if p.offset is not None:
        raise UserError("a real zero point (form: faithful) has no integers to export; quantize with form: integer")
    if isinstance(proxy, SchemeActProxy) and p.scale.numel() > 1:
        raise UserError("activation scales per channel (form: faithful) do not export; quantize with form: integer")
    if isinstance(proxy, SchemeActProxy) and (p.low.numel() > 1 or p.high.numel() > 1):
        raise UserError("levels that differ between channels do not export; quantize with form: integer")
    return p, int(p.low.min().item()), int(p.high.max().item())


class _ImageGrid(nn.Module):
    """Rounds to the grid of an 8-bit image in float, where it is exact; INT8 holds it in two halves at best."""

    def __init__(self, p: QParams) -> None:
        super().__init__()
        assert p.offset is not None
        for name, value in (("step", p.scale), ("offset", p.offset), ("low", p.low), ("high", p.high)):
            self.register_buffer(name, value.clone())

    def forward(self, x: Tensor) -> Tensor:
        position = torch.minimum(torch.maximum((x - self.offset) / self.step, self.low), self.high)  # type: ignore[arg-type]
        return position.round() * self.step + self.offset


def _image_grid(proxy: SchemeActProxy | SchemeWeightProxy) -> _ImageGrid | None:
    """The float form of a first layer that reads an image on its own grid, None for every other proxy."""
    if not isinstance(proxy.quantizer, ImageGridActivation) or not proxy.quantizer.on_grid:
        return None
    p = proxy.params()
    assert p is not None
    return _ImageGrid(p)


class QcdqActHandler(StdQCDQCastONNXActQuantProxyHandler):
    """Round to uint8, with a zero point where levels reach below 0, and clip to the levels.

    Not int8, for which OpenVINO's convolution halves the weights on a CPU without VNNI, and loses their last bit.
    """

    handled_layer = SchemeActProxy

    def prepare_for_export(self, module: SchemeActProxy) -> None:
        self.image = _image_grid(module)
        if self.image is not None:
            return
        p, low, high = _integer_params(module)
        bounds = int8_bounds(low, high)
        if bounds is None:
            raise UserError(
                f"activation levels {low}..{high} fit no INT8; quantize with form: integer and 8 bits or less"
            )
        zero = -bounds[0]
        self.clips = (low, high) != bounds
        self.register_buffer("scale", p.scale.reshape(()))
        self.register_buffer("zero", torch.tensor(zero, dtype=torch.uint8))
        self.register_buffer("low", torch.tensor(low + zero, dtype=torch.uint8))
        self.register_buffer("high", torch.tensor(high + zero, dtype=torch.uint8))

    def symbolic_execution(self, x: Tensor) -> tuple[Tensor, ...]:
        if self.image is not None:
            return (self.image(x),)
        x = self.quantize_fn(x, self.scale, self.zero, torch.uint8, None)
        if self.clips:
            x = self.clip_fn(x, self.low, self.high)
        return (self.dequantize_fn(x, self.scale, self.zero, None),)


class QcdqWeightHandler(StdQCDQCastONNXActQuantProxyHandler):
    """The integers themselves, clipped already: a Clip on a constant would make OpenVINO's convolution run in float."""

    handled_layer = SchemeWeightProxy

    def prepare_for_export(self, module: SchemeWeightProxy) -> None:
        p, _, _ = _integer_params(module)
        weight = module.tracked_parameter_list[0].detach()
        self.register_buffer("integers", module.quantizer.integers(weight).to(torch.int8))
        self.axis = 0 if p.scale.numel() > 1 else None
        scale = p.scale.reshape(-1 if self.axis == 0 else ())
        self.register_buffer("scale", scale)
        self.register_buffer("zero", torch.zeros_like(scale, dtype=torch.int8))

    def symbolic_execution(self, x: Tensor) -> tuple[Tensor, ...]:
        return (self.dequantize_fn(self.integers, self.scale, self.zero, self.axis),)


class QonnxHandler(ONNXBaseHandler):
    """One `Quant` node."""

    handled_layer = (SchemeActProxy, SchemeWeightProxy)

    def prepare_for_export(self, module: SchemeActProxy | SchemeWeightProxy) -> None:
        self.image = _image_grid(module)
        if self.image is not None:
            return
        p, low, high = _integer_params(module)
        self.narrow = low == -high and low < 0
        self.signed = self.narrow or low == -high - 1
        self.register_buffer("scale", p.scale if p.scale.numel() > 1 else p.scale.reshape(()))
        self.register_buffer("zero_point", torch.tensor(0.0 if self.signed else float(-low)))
        self.register_buffer("bit_width", p.bit_width.reshape(()))
        # one bit-width serves all channels, also those whose weights have fewer levels
        limits = (p.low * p.scale, p.high * p.scale) if p.high.numel() > 1 else (None, None)
        for name, value in zip(("lowest", "highest"), limits, strict=True):
            self.register_buffer(name, value)

    def symbolic_execution(self, x: Tensor) -> tuple[Tensor, ...]:
        if self.image is not None:
            return (self.image(x),)
        if self.lowest is not None:
            x = torch.minimum(torch.maximum(x, self.lowest), self.highest)
        arguments = (x, self.scale, self.zero_point, self.bit_width, self.narrow, self.signed, "ROUND")
        return (self.export_op(BrevitasQuantOp, *arguments),)

    def forward(self, x: Tensor) -> Any:
        return self.symbolic_execution(x)


# Brevitas finds a handler by a proxy's very class, so that its own exporters know ours from here on.
StdQCDQONNXManager.handlers.extend([QcdqActHandler, QcdqWeightHandler])
QONNXManager.handlers.append(QonnxHandler)

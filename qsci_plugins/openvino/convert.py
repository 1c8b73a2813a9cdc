"""From a torch module to an OpenVINO model with static shapes, its INT8 constants kept."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import openvino
import torch
from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder
from torch import nn

from qsci_plugins.errors import UserError
from qsci_plugins.openvino.shuffles import hoist_quantizers, pixel_shuffles_as_copies

__all__ = ["convert"]


def convert(
    module: nn.Module, shape: Sequence[int], value_range: float = 255.0, *, tuned: bool = True
) -> openvino.Model:
    """The OpenVINO model of a network that maps one float tensor of this shape, values 0..value_range, to another.

    Shapes are static: with dynamic ones the CPU plugin runs INT8 networks two to three times slower. `tuned` applies
    the exact rewrites of `shuffles`; without them it is what everybody gets from OpenVINO, the baseline to compare with.
    Raises UserError where the network cannot be traced at this shape.
    """
    example = torch.linspace(0, value_range, steps=int(torch.Size(shape).numel())).reshape(*shape)
    with warnings.catch_warnings(), torch.no_grad():
        # tracing warns about every shape that becomes a constant, which is what we want here
        warnings.simplefilter("ignore")
        try:
            # jit's own check traces a second time, and OpenVINO's entry point offers no way to switch it off
            decoder = TorchScriptPythonDecoder(module, example_input=example, trace_kwargs={"check_trace": False})
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise UserError(
                f"the network cannot be exported for inputs of {'x'.join(map(str, shape))}: {reason}"
            ) from None
        model = openvino.convert_model(decoder, example_input=example, input=[list(shape)])
    if tuned:
        hoist_quantizers(model)
        pixel_shuffles_as_copies(model)
    return model

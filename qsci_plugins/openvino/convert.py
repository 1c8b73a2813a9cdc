"""From a torch module to an OpenVINO model with static shapes, its INT8 constants kept."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import openvino
import torch
from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder
from torch import Tensor, nn

from qsci_plugins.errors import UserError
from qsci_plugins.openvino.shuffles import hoist_quantizers, pixel_shuffles_as_copies
from qsci_plugins.openvino.videos import split_transposes, video_shuffles_as_copies

__all__ = ["convert", "convert_like"]


def convert(
    module: nn.Module, shape: Sequence[int], value_range: float = 255.0, *, tuned: bool = True
) -> openvino.Model:
    """The OpenVINO model of a network that maps one float tensor of this shape, values 0..value_range, to another.

    Shapes are static: with dynamic ones the CPU plugin runs INT8 networks two to three times slower. `tuned` applies
    the exact rewrites of `shuffles` and `videos`; without them it is what everybody gets from OpenVINO, the baseline to
    compare with.
    Raises UserError where the network cannot be traced at this shape.
    """
    example = torch.linspace(0, value_range, steps=int(torch.Size(shape).numel())).reshape(*shape)
    return convert_like(module, (example,), tuned=tuned)


def convert_like(module: nn.Module, examples: tuple[Tensor, ...], *, tuned: bool = True) -> openvino.Model:
    """`convert` for a network of several float inputs, of the examples' shapes, which it must be able to run."""
    shapes = [list(example.shape) for example in examples]
    given = examples[0] if len(examples) == 1 else examples
    with warnings.catch_warnings(), torch.no_grad():
        # tracing warns about every shape that becomes a constant, which is what we want here
        warnings.simplefilter("ignore")
        try:
            # jit's own check traces a second time, and OpenVINO's entry point offers no way to switch it off
            decoder = TorchScriptPythonDecoder(module, example_input=given, trace_kwargs={"check_trace": False})
        except (RuntimeError, ValueError) as error:
            # OpenVINO puts its own advice around what torch says
            reason = (str(error.__cause__ or error).strip().splitlines() or [type(error).__name__])[-1]
            sizes = " and ".join("x".join(map(str, shape)) for shape in shapes)
            raise UserError(
                f"the network cannot be exported for inputs of {sizes}: {reason};"
                " if it strides, the sides must be multiples of that"
            ) from None
        model = openvino.convert_model(decoder, example_input=given, input=shapes)
    if tuned:
        hoist_quantizers(model)
        pixel_shuffles_as_copies(model)
        video_shuffles_as_copies(model)
        split_transposes(model)
    return model

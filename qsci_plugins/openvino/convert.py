"""From a torch module to an OpenVINO model with static shapes, its INT8 constants kept."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import openvino
import torch
from openvino import opset13 as ops
from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder
from torch import Tensor, nn

from qsci_plugins.errors import UserError
from qsci_plugins.openvino.shuffles import hoist_quantizers, only_consumer, pixel_shuffles_as_copies, sort_channels

__all__ = [
    "convert",
    "convert_like",
    "gathers_along_one_axis",
    "part_unjoined",
    "split_transposes",
    "video_shuffles_as_copies",
]


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
        part_unjoined(model)
        gathers_along_one_axis(model)
        hoist_quantizers(model)
        pixel_shuffles_as_copies(model)
        video_shuffles_as_copies(model)
        split_transposes(model)
    return model


def part_unjoined(model: openvino.Model) -> int:
    """Hands on tensors that are joined only to be parted in the same places; returns how many joints were left out.

    Both copies take a tenth of the time of a SPAN in INT8.
    """
    found = 0
    for node in model.get_ordered_ops():
        joint = node.input_value(0).get_node() if node.get_input_size() > 1 else None
        if joint is None or node.get_type_name() not in ("Split", "VariadicSplit") or joint.get_type_name() != "Concat":
            continue
        axis = node.input_value(1).get_node()
        rank = len(joint.output(0).get_partial_shape())
        if axis.get_type_name() != "Constant" or int(axis.data) % rank != joint.get_attributes()["axis"] % rank:
            continue
        inputs = [value.get_source_output() for value in joint.inputs()]
        if [v.get_partial_shape() for v in inputs] != [v.get_partial_shape() for v in node.outputs()]:
            continue
        for part, value in zip(node.outputs(), inputs, strict=True):
            _replace(part, value)
        found += 1
    return found


def gathers_along_one_axis(model: openvino.Model) -> int:
    """Gathers of indices with several axes (torch's unfold) as one of the flat indices and a reshape; returns how many.

    OpenVINO moves the scales of a quantized convolution past a gather, and cannot compile the graph where axes are added.
    """
    found = 0
    for node in model.get_ordered_ops():
        if node.get_type_name() != "Gather" or node.get_attributes().get("batch_dims"):
            continue
        indices, end = node.input_value(1), node.output(0)
        if len(indices.get_partial_shape()) < 2 or end.get_partial_shape().is_dynamic:
            continue
        flat = ops.gather(node.input_value(0), _reshaped(indices, [-1]), node.input_value(2))
        whole = _reshaped(flat.output(0), list(end.get_shape()))
        whole.get_node().set_friendly_name(node.get_friendly_name())
        _replace(end, whole)
        found += 1
    model.validate_nodes_and_infer_types()
    return found


_CHANNELS_LAST = [0, 2, 3, 4, 1]
_CHANNELS_FIRST = [0, 4, 1, 2, 3]
_TO_TOKENS = [0, 3, 4, 2, 1]
_FROM_TOKENS = [0, 4, 3, 1, 2]
_FRAMES_AND_CHANNELS = [0, 2, 1, 3, 4]
_SHUFFLE = [0, 1, 4, 2, 5, 3]


def split_transposes(model: openvino.Model) -> int:
    """Parts the transpositions between videos (N,C,T,H,W) and tokens (N,H,W,T,C) in two; returns how many.

    Height and width are one axis in between, without which OpenVINO would put the two together again.
    """
    split = 0
    for node in model.get_ordered_ops():
        order = _order(node)
        if order not in (_TO_TOKENS, _FROM_TOKENS):
            continue
        source, end = node.input_value(0), node.output(0)
        if order == _TO_TOKENS:
            batch, channels, frames, height, width = source.get_shape()
            pixels = _reshaped(_transposed(source, _CHANNELS_LAST), [batch, frames, height * width, channels])
            result = _reshaped(_transposed(pixels, [0, 2, 1, 3]), list(end.get_shape()))
        else:
            batch, height, width, frames, channels = source.get_shape()
            places = _reshaped(source, [batch, height * width, frames, channels])
            pixels = _reshaped(_transposed(places, [0, 2, 1, 3]), [batch, frames, height, width, channels])
            result = _transposed(pixels, _CHANNELS_FIRST)
        result.get_node().set_friendly_name(node.get_friendly_name())
        _replace(end, result)
        split += 1
    model.validate_nodes_and_infer_types()
    return split


def video_shuffles_as_copies(model: openvino.Model) -> int:
    """Rewrites pixel shuffles of videos, frame by frame, as copies of two whole pixels each; returns how many.

    The channels of the convolution in front are sorted for it; one whose convolution is not found stays as it is.
    """
    rewritten = 0
    for node in model.get_ordered_ops():
        found = _shuffle(node)
        if found is None:
            continue
        source, end, factor = found
        batch, total, frames, height, width = source.get_shape()
        channels = total // factor**2
        if not sort_channels(source, np.arange(total).reshape(channels, -1).T.reshape(-1)):
            continue
        pixels = _transposed(source, _CHANNELS_LAST)
        parts = _reshaped(pixels, [batch * frames * height, width, factor, factor * channels])
        rows = _transposed(parts, [0, 2, 1, 3])
        video = _reshaped(rows, [batch, frames, height * factor, width * factor, channels])
        result = _transposed(video, _CHANNELS_FIRST)
        result.get_node().set_friendly_name(end.get_node().get_friendly_name())
        _replace(end, result)
        rewritten += 1
    model.validate_nodes_and_infer_types()
    return rewritten


def _shuffle(node: openvino.Node) -> tuple[openvino.Output, openvino.Output, int] | None:
    """The video (N,C,T,H,W) whose frames a transposition shuffles, the video that they make, and the factor."""
    if _order(node) != _SHUFFLE:
        return None
    before, after = _reshaped_from(node), _reshaped_to(node)
    if before is None or after is None or _order(before) != _order(after) or _order(after) != _FRAMES_AND_CHANNELS:
        return None
    source, end = before.input_value(0), after.output(0)
    batch, channels, frames, height, width = source.get_shape()
    images, kept, rows, columns, *size = node.input_value(0).get_shape()
    alike = [images, kept * rows * columns, *size] == [batch * frames, channels, height, width]
    whole = [batch, kept, frames, height * rows, width * rows]
    if rows != columns or not alike or list(end.get_shape()) != whole:
        return None
    return source, end, rows


def _reshaped_from(node: openvino.Node) -> openvino.Node | None:
    """What a node gets, reshaped, where nothing else uses it."""
    while (node := node.input_value(0).get_node()).get_type_name() == "Reshape":
        if only_consumer(node.output(0)) is None:
            return None
    return node if only_consumer(node.output(0)) is not None else None


def _reshaped_to(node: openvino.Node) -> openvino.Node | None:
    """What alone uses a node's output, reshaped."""
    user = only_consumer(node.output(0))
    while user is not None and user.get_type_name() == "Reshape":
        user = only_consumer(user.output(0))
    return user


def _order(node: openvino.Node) -> list[int] | None:
    if node.get_type_name() != "Transpose" or not node.input_value(0).get_partial_shape().is_static:
        return None
    order = node.input_value(1).get_node()
    return [int(axis) for axis in order.data] if order.get_type_name() == "Constant" else None


def _transposed(value: openvino.Output, order: list[int]) -> openvino.Output:
    return ops.transpose(value, ops.constant(np.array(order, np.int64))).output(0)


def _reshaped(value: openvino.Output, shape: list[int]) -> openvino.Output:
    return ops.reshape(value, ops.constant(np.array(shape, np.int64)), special_zero=False).output(0)


def _replace(old: openvino.Output, new: openvino.Output) -> None:
    for consumer in list(old.get_target_inputs()):
        consumer.replace_source_output(new)

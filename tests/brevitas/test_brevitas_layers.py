"""Single layers, put together by hand as Brevitas users do."""

from __future__ import annotations

import copy
from pathlib import Path

import brevitas.nn as qnn
import pytest
import torch
from brevitas.inject import ExtendedInjector
from brevitas.inject.enum import RestrictValueType, ScalingImplType
from brevitas.quant import Int8WeightPerTensorFloat
from brevitas.quant.base import NarrowIntQuant, PerTensorFloatScaling8bit
from brevitas.quant.solver import ActQuantSolver
from brevitas.quant_tensor import QuantTensor
from golden import golden_files, load
from plain import relative_error
from torch import nn

from qsci_plugins.brevitas import (
    AdaBMAct,
    AdaBMWeight,
    CADyQAct,
    CADyQWeight,
    QSCIAct,
    QSCIWeight,
    QuantConv1d,
    QuantConv2d,
    QuantConv3d,
    QuantLinear,
    SchemeActQuant,
)
from qsci_plugins.errors import UserError
from qsci_plugins.schemes.content import Content, set_content
from qsci_plugins.schemes.pams import SymmetricActivation


@pytest.fixture(autouse=True)
def _fresh() -> None:
    torch.manual_seed(0)
    set_content(None)


PAIRS = [(AdaBMAct, AdaBMWeight), (CADyQAct, CADyQWeight), (QSCIAct, QSCIWeight)]


@pytest.mark.parametrize(("act", "weight"), PAIRS)
@pytest.mark.parametrize(
    ("layer", "arguments", "shape"),
    [
        (QuantConv1d, (4, 5, 3), (2, 4, 9)),
        (QuantConv2d, (4, 5, 3), (2, 4, 9, 8)),
        (QuantConv3d, (4, 5, 3), (2, 4, 5, 6, 7)),
        (QuantLinear, (4, 5), (2, 7, 4)),
    ],
)
def test_every_layer_takes_every_pair(
    act: type[ExtendedInjector],
    weight: type[ExtendedInjector],
    layer: type[nn.Module],
    arguments: tuple[int, ...],
    shape: tuple[int, ...],
) -> None:
    module = layer(*arguments, input_quant=act, weight_quant=weight)
    x = torch.randn(shape, requires_grad=True)
    set_content(Content(torch.ones(2), torch.ones(2, 2), torch.tensor([-1.0, 1.0])))
    y = module(x)
    assert not isinstance(y, QuantTensor)
    assert not isinstance(module.quant_weight(), QuantTensor)
    y.sum().backward()
    assert x.grad is not None
    assert module.weight.grad.abs().sum() > 0
    copied = copy.deepcopy(module)
    assert torch.equal(copied(x), y)
    again = layer(*arguments, input_quant=act, weight_quant=weight)
    again.load_state_dict(module.state_dict())
    assert torch.equal(again(x), module(x))


def test_settings_are_arguments_of_the_layer() -> None:
    layer = QuantConv2d(
        3,
        4,
        3,
        input_quant=CADyQAct,
        input_candidates=(2, 3),
        weight_quant=CADyQWeight,
        weight_weight_bits=5,
    )
    assert layer.input_quant.quantizer.candidates == (2, 3)
    assert layer.weight_quant.bit_width() == 5
    with pytest.raises(UserError, match=r"scheme\.candidates"):
        QuantConv2d(3, 4, 3, input_quant=CADyQAct, input_candidates=(1, 3))


def test_brevitas_own_layers_take_our_quantizers_too() -> None:
    layer = qnn.QuantConv2d(3, 4, 3, input_quant=QSCIAct, weight_quant=QSCIWeight)
    assert layer(torch.randn(2, 3, 5, 5)).shape == (2, 4, 3, 3)
    mixed = QuantConv2d(3, 4, 3, input_quant=QSCIAct, weight_quant=Int8WeightPerTensorFloat)
    assert mixed(torch.randn(2, 3, 5, 5)).shape == (2, 4, 3, 3)


def test_static_quantizers_tell_their_scale_zero_point_and_bits() -> None:
    layer = QuantConv2d(3, 4, 3, input_quant=QSCIAct, weight_quant=QSCIWeight, weight_weight_bits=3)
    layer(torch.randn(2, 3, 5, 5))
    assert layer.input_quant.bit_width() == 4
    assert layer.input_quant.scale() == layer.input_quant.quantizer.step
    assert layer.input_quant.zero_point() == -layer.input_quant.quantizer.qparams(torch.zeros(1)).low
    assert layer.weight_quant.scale().shape == (4, 1, 1, 1)
    assert layer.weight_quant.bit_width() == 3
    y, scale, zero_point, bits = layer.weight_quant.tensor_quant(layer.weight)
    integers = y / scale + zero_point
    assert torch.allclose(integers, integers.round(), atol=1e-4)
    assert integers.min() >= -1e-4
    assert integers.max() <= 2 ** bits.item() - 1 + 1e-4


def test_cadyq_weights_are_brevitas_max_abs_weights() -> None:
    ours = QuantConv2d(3, 4, 3, weight_quant=CADyQWeight, weight_form="faithful")
    theirs = qnn.QuantConv2d(3, 4, 3, weight_quant=Int8WeightPerTensorFloat)
    theirs.load_state_dict({"weight": ours.weight, "bias": ours.bias})
    torch.testing.assert_close(ours.quant_weight(), theirs.quant_weight().value)


def test_pams_forward_is_brevitas_narrow_range_with_a_learned_scale() -> None:
    class Pams(NarrowIntQuant, PerTensorFloatScaling8bit, ActQuantSolver):
        scaling_impl_type = ScalingImplType.PARAMETER
        restrict_scaling_type = RestrictValueType.FP
        scaling_init = 2.5
        bit_width = 5

    quantizer = SymmetricActivation((5,))
    with torch.no_grad():
        quantizer.alpha.fill_(2.5)
    ours = qnn.QuantIdentity(act_quant=SchemeActQuant.let(quantizer=quantizer))
    theirs = qnn.QuantIdentity(act_quant=Pams)
    x = torch.randn(4, 3, 8, 8) * 2
    torch.testing.assert_close(ours(x), theirs(x))


@pytest.mark.parametrize("file", golden_files("qsci_conv3d_*"))
def test_golden_lsq_convolution_as_a_brevitas_layer(file: Path) -> None:
    arrays = {name: torch.tensor(array) for name, array in load(file).items()}
    bits, weight = int(arrays["bits"]), arrays["weight"]
    layer = QuantConv3d(
        weight.shape[1],
        weight.shape[0],
        tuple(weight.shape[2:]),
        padding=tuple(side // 2 for side in weight.shape[2:]),
        input_quant=QSCIAct,
        input_activation_bits=bits,
        input_form="faithful",
        weight_quant=QSCIWeight,
        weight_weight_bits=bits,
        weight_form="faithful",
    )
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(arrays["bias"])
    layer.weight_quant.init_tensor_quant()
    layer(arrays["first_batch"])
    act, steps = layer.input_quant.quantizer, layer.weight_quant.quantizer.step
    assert relative_error(act.step, arrays["act_alpha"]) < 1e-5
    assert relative_error(steps.flatten(), arrays["weight_alpha"]) < 1e-5
    x = arrays["x"].requires_grad_()
    y = layer(x)
    (y * arrays["upstream"]).sum().backward()
    assert relative_error(y, arrays["output"]) < 1e-5
    assert relative_error(x.grad, arrays["grad_x"]) < 1e-5
    assert relative_error(layer.weight.grad, arrays["grad_weight"]) < 1e-5
    assert relative_error(steps.grad.flatten(), arrays["grad_weight_alpha"]) < 3e-5
    assert relative_error(act.step.grad, arrays["grad_act_alpha"]) < 3e-5

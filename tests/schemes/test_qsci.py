from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from golden import golden_files, load
from plain import apply_plain, calibrate
from torch import Tensor

from qsci_plugins.architectures.sci.efficientsci import EfficientSCI
from qsci_plugins.architectures.sr.edsr import EDSR
from qsci_plugins.errors import UserError
from qsci_plugins.schemes.lsq import LearnedStepActivation, LearnedStepWeight
from qsci_plugins.schemes.placement import Placement
from qsci_plugins.schemes.registry import make_scheme
from qsci_plugins.schemes.scheme import QuantizedNetwork
from qsci_plugins.schemes.shortcuts import SHORTCUTS, add_shortcuts


def measurement(side: int = 8, frames: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    mask = torch.rand(1, frames, side, side, generator=torch.Generator().manual_seed(0)) + 0.1
    video = torch.rand(1, frames, side, side, generator=torch.Generator().manual_seed(1))
    return (video * mask).sum(1), mask, mask.sum(1)


def load_steps(network: QuantizedNetwork, state: dict[str, Tensor]) -> None:
    """Copies the published quantizers' state into ours, by the layers' names."""
    named: dict[str, LearnedStepActivation] = {}
    with torch.no_grad():
        for name, quantizers in network.layers.items():
            assert isinstance(quantizers.weight, LearnedStepWeight)
            quantizers.weight.step.copy_(state[f"{name}.alpha"].reshape(quantizers.weight.step.shape))
            named[f"{name}.act"] = quantizers.activation  # type: ignore[assignment]
        for name, attention in network.attentions.items():
            attention.query.shift.copy_(state[f"{name}.moveq.bias"][0])
            attention.key.shift.copy_(state[f"{name}.movek.bias"][0])
            operands = ("q_act", attention.query.quantizer), ("k_act", attention.key.quantizer)
            for part, quantizer in (*operands, ("v_act", attention.value), ("attn_act", attention.map)):
                named[f"{name}.{part}"] = quantizer  # type: ignore[assignment]
        for name, quantizer in named.items():
            quantizer.step.copy_(state[f"{name}.alpha"])
            quantizer.zero_point.copy_(state[f"{name}.zero_point"])
            quantizer.signed.copy_(state[f"{name}.signed"][0])
            quantizer.calibrated.fill_(True)


def published_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The published network's tensors under the names of the stock network with shortcuts."""
    renamed = {}
    for name, tensor in state.items():
        part = re.match(r"(fem|vrm)_conv(\d)_([12])(?:\.0)?\.(.*)", name)
        if part:
            module, number, branch, rest = part.groups()
            branch = "layer" if branch == "1" else "shortcut"
            name = f"{module}.{2 * (int(number) - 1)}.{branch}.{rest}"
        renamed[name] = tensor
    return renamed


@pytest.mark.parametrize("file", golden_files("qsci_net_*"))
def test_golden_quantized_efficientsci(file: Path) -> None:
    arrays = {name: torch.tensor(array) for name, array in load(file).items()}
    bits = int(arrays["bits"])
    state = published_names({name[6:]: array for name, array in arrays.items() if name.startswith("state/")})
    model = EfficientSCI(in_ch=int(arrays["in_ch"]), units=int(arrays["units"])).eval()
    placement = Placement()
    if bits < 8:
        model = add_shortcuts(model, ["fem.*", "vrm.*"])
        placement = Placement(eight_bit=(SHORTCUTS,))
    model.load_state_dict({name: state[name] for name in model.state_dict()})
    inputs = arrays["measurement"], arrays["mask"], arrays["mask_sum"]
    settings = {"name": "qsci", "form": "faithful", "weight_bits": bits, "activation_bits": bits}
    network = apply_plain(model, make_scheme(settings), placement, inputs, 1.0)
    load_steps(network, state)
    with torch.no_grad():
        output = network.model(*inputs)
    error = (output - arrays["output"]).abs() / (arrays["output"].max() - arrays["output"].min())
    assert error.mean() < 1e-4
    assert (error > 1e-3).float().mean() < 0.01


@pytest.mark.parametrize("form", ["faithful", "integer"])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_layers_and_attentions_are_quantized_and_calibrated(form: str, bits: int) -> None:
    torch.manual_seed(0)
    model = EfficientSCI(in_ch=8, units=1).eval()
    settings = {"name": "qsci", "form": form, "weight_bits": bits, "activation_bits": bits}
    network = apply_plain(model, make_scheme(settings), Placement(), measurement(), 1.0)
    assert len(network.attentions) == 2
    assert not network.calibrated()
    network.model.train()(*measurement())
    assert network.calibrated()
    with torch.no_grad():
        quantized, stock = network.model.eval()(*measurement()), model(*measurement())
    error = float((quantized - stock).abs().mean() / stock.abs().mean())
    assert 0 < error < {2: 2.0, 4: 0.6, 8: 0.05}[bits]


def test_integer_activations_have_one_step_and_published_ones_a_step_for_each_channel() -> None:
    model = EDSR(blocks=1, width=6, scale=2)
    for form, channels in ("integer", 1), ("faithful", 6):
        network = apply_plain(
            model,
            make_scheme({"name": "qsci", "form": form, "attention": []}),
            Placement(("body.*",)),
            torch.rand(1, 3, 8, 8),
        )
        assert network.layers["body.0.body.0"].activation.step.shape == (channels,)
        assert network.layers["body.0.body.0"].weight.step.shape == (6, 1, 1, 1)


def test_calibration_of_an_image_network() -> None:
    torch.manual_seed(0)
    model = EDSR(blocks=1, width=6, scale=2).eval()
    batches = [torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(i)) * 255 for i in range(2)]
    for form in "integer", "faithful":
        settings = {"name": "qsci", "form": form, "attention": [], "weight_bits": 8, "activation_bits": 8}
        network = apply_plain(model, make_scheme(settings), Placement(), batches[0])
        calibrate(network, batches)
        assert network.calibrated()
        if form == "integer":  # the published first values are coarse, and meant for training
            with torch.no_grad():
                error = (network.model(batches[1]) - model(batches[1])).abs().mean()
            assert error < 3.0


def test_the_shift_can_be_left_out() -> None:
    model = EfficientSCI(in_ch=8, units=1)
    network = apply_plain(model, make_scheme({"name": "qsci", "shift": False}), Placement(), measurement(), 1.0)
    assert not any("shift" in name for name, _ in network.model.named_parameters())


def test_a_network_without_attention() -> None:
    model = EDSR(blocks=1, width=4, scale=2)
    with pytest.raises(UserError, match=r"no attention.*attention to \[\]"):
        apply_plain(model, make_scheme({"name": "qsci"}), Placement(), torch.rand(1, 3, 8, 8))


def test_an_attention_that_is_named_wrongly() -> None:
    model = EfficientSCI(in_ch=8, units=1)
    scheme = make_scheme({"name": "qsci", "attention": ["*.tsb"]})
    with pytest.raises(UserError, match=r"'\*\.tsb'; the nearest are resdnet_list"):
        apply_plain(model, scheme, Placement(), measurement(), 1.0)


def test_a_zero_point_at_eight_bits_does_not_fit_int8() -> None:
    settings = {"name": "qsci", "zero_point": "learned", "activation_bits": 8}
    with pytest.raises(UserError, match=r"zero_point.*activation_bits 7"):
        make_scheme(settings)
    make_scheme({**settings, "form": "faithful"})
    make_scheme({**settings, "activation_bits": 7})


@pytest.mark.parametrize("bits", [1, 9])
def test_bits_out_of_range(bits: int) -> None:
    with pytest.raises(UserError, match=r"scheme\.activation_bits"):
        make_scheme({"name": "qsci", "activation_bits": bits})

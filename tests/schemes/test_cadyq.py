from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from golden import golden_files, load
from plain import apply_plain, calibrate, relative_error
from torch import Tensor, nn

from qsci_plugins.architectures.sr.edsr import EDSR
from qsci_plugins.errors import UserError
from qsci_plugins.schemes.bit_selector import BitSelector
from qsci_plugins.schemes.bit_width import record_bits
from qsci_plugins.schemes.pams import SymmetricActivation
from qsci_plugins.schemes.placement import Placement
from qsci_plugins.schemes.registry import make_scheme
from qsci_plugins.schemes.scheme import QuantizedNetwork

BODY = Placement(targets=("body.*.body.*",))


def images(count: int, side: int = 12) -> Tensor:
    """From flat to rough, so that selectors that were trained a little choose differently."""
    noise = torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(1)) * 200
    return noise * torch.linspace(0, 1, count)[:, None, None, None] + 20


def small_edsr() -> EDSR:
    torch.manual_seed(0)
    return EDSR(blocks=2, width=6, scale=2).eval()


def make_choices_differ(network: QuantizedNetwork) -> None:
    for quantizer in network.counted():
        assert isinstance(quantizer, BitSelector)
        with torch.no_grad():
            quantizer.weight.copy_(
                torch.linspace(-0.1, 0.1, len(quantizer.candidates))[:, None].expand_as(quantizer.weight)
            )
            quantizer.bias.copy_(torch.linspace(6, -6, len(quantizer.candidates)))


@pytest.mark.parametrize("file", golden_files("cadyq_edsr*"))
def test_golden_cadyq_edsr(file: Path) -> None:
    arrays = {name: torch.tensor(array) for name, array in load(file).items()}
    state = {name[3:]: array for name, array in arrays.items() if name.startswith("fp/")}
    blocks, width = int(arrays["n_resblocks"]), int(arrays["n_feats"])
    inputs = arrays["images"].float()
    scale = arrays["output"].shape[-1] // inputs.shape[-1]
    model = EDSR(blocks=blocks, width=width, scale=scale).eval()
    model.load_state_dict(state)
    candidates = (4, 6, 8)
    network = apply_plain(
        model, make_scheme({"name": "cadyq", "form": "faithful", "candidates": candidates}), BODY, inputs[:1]
    )
    assert len(network.counted()) == int(arrays["n_selectors"])
    with torch.no_grad():
        for index in range(blocks):
            last = network.layers[f"body.{index}.body.2"]
            for part, selector in ("in_selector", network.blocks[f"body.{index}"]), ("mid_selector", last.activation):
                prefix = f"cadyq/body.{index}.{part}"
                alphas = [arrays[f"{prefix}.quant_bit{k + 1}.alpha"] for k in range(len(candidates))]
                selector.alpha.copy_(torch.cat(alphas))
                selector.weight.copy_(arrays[f"{prefix}.net_small.0.weight"])
                selector.bias.copy_(arrays[f"{prefix}.net_small.0.bias"])
            last.output.alpha.copy_(arrays[f"cadyq/body.{index}.residual_quantizer.alpha"])
        with record_bits() as ledger:
            output = network.model(inputs)
    assert torch.equal(ledger.total(network.counted()), arrays["bits_sum"])
    assert relative_error(ledger.weighted_total(network.counted()), arrays["weighted_bits_sum"]) < 1e-4
    error = (output - arrays["output"]).abs() / (arrays["output"].max() - arrays["output"].min())
    # one value that rounds the other way in a 4-bit layer is seen in its neighbourhood
    assert error.mean() < 1e-4
    assert (error > 1e-3).float().mean() < 0.01


def test_published_places_are_block_inputs_second_layers_and_branches() -> None:
    network = apply_plain(small_edsr(), make_scheme({"name": "cadyq", "form": "faithful"}), BODY, images(1))
    assert list(network.blocks) == ["body.0", "body.1"]
    first, second = network.layers["body.0.body.0"], network.layers["body.0.body.2"]
    assert first.activation is None
    assert first.output is None
    assert isinstance(second.activation, BitSelector)
    assert isinstance(second.output, SymmetricActivation)
    assert second.output.bit_widths == (8,)


def test_the_skip_stays_in_float_in_the_integer_form() -> None:
    network = apply_plain(small_edsr(), make_scheme({"name": "cadyq"}), BODY, images(1))
    assert not network.blocks
    assert all(q.activation is not None and q.output is None for q in network.layers.values())
    assert network.layers["body.0.body.0"].weight.per_channel


def test_the_skip_can_be_quantized_in_the_integer_form() -> None:
    network = apply_plain(small_edsr(), make_scheme({"name": "cadyq", "quantize_skip": True}), BODY, images(1))
    assert len(network.blocks) == 2
    assert len(network.counted()) == 4


@pytest.mark.parametrize("form", ["faithful", "integer"])
def test_calibrated_bits_depend_on_the_image_and_batches_on_nothing_else(form: str) -> None:
    network = apply_plain(small_edsr(), make_scheme({"name": "cadyq", "form": form}), BODY, images(1))
    calibrate(network, [images(4)])
    assert network.calibrated()
    assert torch.equal(network.fab(images(3)), torch.full((3,), 8.0))
    make_choices_differ(network)
    inputs = images(6)
    bits = network.fab(inputs)
    assert bits.unique().numel() > 1
    with torch.no_grad():
        together = network.model(inputs)
    for i in range(6):
        assert torch.equal(network.fab(inputs[i : i + 1]), bits[i : i + 1])
        with torch.no_grad():
            alone = network.model(inputs[i : i + 1])
        torch.testing.assert_close(alone[0], together[i], rtol=1e-4, atol=1e-3)


def test_eight_bit_layers_are_fixed_and_not_counted() -> None:
    network = apply_plain(
        small_edsr(),
        make_scheme({"name": "cadyq"}),
        Placement(targets=("body.*",), eight_bit=("head.*", "tail.*")),
        images(1),
    )
    calibrate(network, [images(4)])
    head = network.layers["head.0"]
    assert not head.counted
    assert isinstance(head.activation, SymmetricActivation)
    assert not isinstance(head.activation, BitSelector)
    assert len(network.counted()) == 5


def test_the_bit_loss_moves_every_selector() -> None:
    network = apply_plain(small_edsr(), make_scheme({"name": "cadyq", "form": "faithful"}), BODY, images(1))
    calibrate(network, [images(4)])
    make_choices_differ(network)
    with record_bits() as ledger:
        output = network.model(images(4))
    (output.square().mean() + ledger.weighted_total(network.counted()).mean()).backward()
    for quantizer in network.counted():
        assert quantizer.weight.grad.abs().sum() > 0
        assert quantizer.alpha.grad.abs().sum() > 0
    copied = copy.deepcopy(network.model)
    with torch.no_grad():
        assert torch.equal(copied(images(2)), network.model(images(2)))


@pytest.mark.parametrize(
    ("candidates", "complaint"),
    [([1, 4], "from 2 to 8"), ([4, 9], "from 2 to 8"), ([8, 4], "smallest first"), ([], "different")],
)
def test_candidates_out_of_range(candidates: list[int], complaint: str) -> None:
    with pytest.raises(UserError, match=r"scheme\.candidates.*" + complaint):
        make_scheme({"name": "cadyq", "candidates": candidates})


def test_a_network_without_residual_blocks() -> None:
    plain = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 3, 3, padding=1))
    with pytest.raises(UserError, match="quantize_skip"):
        apply_plain(plain, make_scheme({"name": "cadyq", "quantize_skip": True}), Placement(), images(1))
    network = apply_plain(plain, make_scheme({"name": "cadyq", "form": "faithful"}), Placement(), images(1))
    assert not network.blocks

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from brevitas.graph.calibrate import calibration_mode
from golden import golden_files, load
from plain import relative_error
from torch import Tensor, nn
from torch.nn import functional as F

from qsci_plugins.architectures.sci.efficientsci import TemporalAttention
from qsci_plugins.brevitas import ShiftedScaledDotProductAttention, apply, network
from qsci_plugins.schemes.placement import Placement
from qsci_plugins.schemes.quantizer import Mode
from qsci_plugins.schemes.registry import make_scheme


class Wrapped(nn.Module):
    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.attention = attention

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x)


@pytest.mark.parametrize("file", golden_files("qsci_attention_*"))
def test_golden_attention_in_brevitas(file: Path) -> None:
    arrays = {name: torch.tensor(array) for name, array in load(file).items()}
    x, bits = arrays["x"], int(arrays["bits"])
    stock = TemporalAttention(x.shape[-1], int(arrays["heads"]))
    stock.load_state_dict({name: arrays[f"state/{name}"] for name in stock.state_dict()})
    scheme = make_scheme({"name": "qsci", "form": "faithful", "weight_bits": bits, "activation_bits": bits})
    quantized = apply(Wrapped(stock), scheme, Placement(), arrays["first_batch"], 1.0)
    attention = quantized.attentions["attention"]
    with torch.no_grad():
        attention.query.shift.copy_(arrays["state/moveq.bias"][0])
        attention.key.shift.copy_(arrays["state/movek.bias"][0])
    quantized.model.train()(arrays["first_batch"])
    y = quantized.model(x)
    (y * arrays["upstream"]).sum().backward()
    assert relative_error(y, arrays["output"]) < 1e-5
    operands = {
        "q_act": attention.query.quantizer,
        "k_act": attention.key.quantizer,
        "v_act": attention.value,
        "attn_act": attention.map,
    }
    for name, quantizer in operands.items():
        assert relative_error(quantizer.step, arrays[f"state/{name}.alpha"]) < 1e-5
        assert relative_error(quantizer.step.grad, arrays[f"grad/{name}.alpha"]) < 3e-5
    assert relative_error(attention.query.shift.grad, arrays["grad/moveq.bias"][0]) < 3e-5
    for layer in ("qkv", "proj"):
        module = quantized.model.get_submodule(f"attention.{layer}")
        assert relative_error(module.weight.grad, arrays[f"grad/{layer}.weight"]) < 3e-5


def test_calibration_mode_fits_the_operands_to_what_is_shifted() -> None:
    torch.manual_seed(0)
    x = torch.randn(6, 5, 16)
    quantized = apply(Wrapped(TemporalAttention(16, 4)), make_scheme({"name": "qsci"}), Placement(), x, 1.0)
    attention = quantized.attentions["attention"]
    with torch.no_grad():
        attention.query.shift.fill_(100.0)
        with calibration_mode(quantized.model):
            quantized.model(x)
    assert all(bool(quantizer.calibrated) for quantizer in attention)
    levels = 2**4 - 1
    assert attention.query.quantizer.step.item() * levels > 50
    assert attention.key.quantizer.step.item() * levels < 50
    # the same quantizers are found again in the model
    assert network(quantized.model).attentions["attention"].query.quantizer is attention.query.quantizer


def test_shift_outlives_quantization_that_is_switched_off() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 5, 16)
    quantized = apply(Wrapped(TemporalAttention(16, 4)), make_scheme({"name": "qsci"}), Placement(), x, 1.0)
    proxied = quantized.model.attention.qsci_attention
    with torch.no_grad():
        quantized.attentions["attention"].query.shift.fill_(0.5)
    proxied.query_quant.act_quant.disable_quant = True
    q = torch.randn(2, 4, 5, 2)
    torch.testing.assert_close(proxied.query(q), q + 0.5)


def test_the_layer_for_attentions_of_ones_own() -> None:
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, 4, 6, 8).unbind(0)
    attention = ShiftedScaledDotProductAttention(heads=4, bits=8)
    attention.train()(q, k, v)
    reference = F.scaled_dot_product_attention(q, k, v)
    with torch.no_grad():
        error = (attention.eval()(q, k, v) - reference).abs().mean() / reference.abs().mean()
        assert 0 < error < 0.05
        attention.pre_process_q.shift.fill_(0.7)
        shifted = attention(q, k, v)
        moved = F.scaled_dot_product_attention(q + 0.7, k, v)
        assert (shifted - moved).abs().mean() / moved.abs().mean() < 0.05
    attention(q, k, v).sum().backward()
    assert attention.pre_process_q.shift.grad.shape == (4, 1, 1)
    again = ShiftedScaledDotProductAttention(heads=4, bits=8)
    again.load_state_dict(attention.state_dict())
    assert torch.equal(again.eval()(q, k, v), attention(q, k, v))


def test_mode_off_is_the_float_attention() -> None:
    torch.manual_seed(0)
    stock, x = TemporalAttention(16, 4), torch.randn(2, 5, 16)
    quantized = apply(Wrapped(stock), make_scheme({"name": "qsci"}), Placement(), x, 1.0)
    quantized.model.train()(x)
    with torch.no_grad():
        quantized.attentions["attention"].query.shift.fill_(0.5)
    for model in (quantized.model, copy.deepcopy(quantized.model)):
        assert not torch.allclose(model(x), stock(x), atol=1e-4)
        for quantizer in network(model).quantizers():
            quantizer.mode = Mode.OFF
        torch.testing.assert_close(model(x), stock(x))

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from golden import golden_files, load
from plain import apply_plain, relative_error
from torch import Tensor, nn
from torch.nn import functional as F

from qsci_plugins.architectures.sci.efficientsci import TemporalAttention
from qsci_plugins.schemes.attention import AttentionQuantizers, ShiftedQuantizer, attach_attention
from qsci_plugins.schemes.lsq import LearnedStepActivation
from qsci_plugins.schemes.placement import Placement
from qsci_plugins.schemes.quantizer import Mode
from qsci_plugins.schemes.registry import describe, make_scheme, rebuild
from qsci_plugins.schemes.scheme import QuantizedNetwork


class Wrapped(nn.Module):
    """A network around one attention, so that this has a name."""

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.attention = attention

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x)


class ScaledFirst(TemporalAttention):
    """The same attention with the queries scaled ahead of the product, as most networks do it."""

    def forward(self, x: Tensor) -> Tensor:
        places, frames, width = x.shape
        shape = (places, frames, 3, self.heads, width // 2 // self.heads)
        q, k, v = self.qkv(x).reshape(shape).permute(2, 0, 3, 1, 4).unbind(0)
        q = q * self.scale
        attention = (q @ k.transpose(-2, -1)).softmax(dim=-1)
        return self.proj((attention @ v).transpose(1, 2).reshape(places, frames, width // 2))


class Fused(TemporalAttention):
    def forward(self, x: Tensor) -> Tensor:
        places, frames, width = x.shape
        shape = (places, frames, 3, self.heads, width // 2 // self.heads)
        q, k, v = self.qkv(x).reshape(shape).permute(2, 0, 3, 1, 4).unbind(0)
        attended = F.scaled_dot_product_attention(q, k, v, scale=self.scale)
        return self.proj(attended.transpose(1, 2).reshape(places, frames, width // 2))


FORMS = [TemporalAttention, ScaledFirst, Fused]


def quantized(attention: nn.Module, example: Tensor, bits: int = 4, form: str = "faithful") -> QuantizedNetwork:
    settings = {"name": "qsci", "form": form, "weight_bits": bits, "activation_bits": bits}
    return apply_plain(Wrapped(attention), make_scheme(settings), Placement(), example, 1.0)


def steps_of(network: QuantizedNetwork) -> dict[str, LearnedStepActivation]:
    attention = network.attentions["attention"]
    named = {
        "qkv.act": network.layers["attention.qkv"].activation,
        "proj.act": network.layers["attention.proj"].activation,
        "q_act": attention.query.quantizer,
        "k_act": attention.key.quantizer,
        "v_act": attention.value,
        "attn_act": attention.map,
    }
    assert all(isinstance(quantizer, LearnedStepActivation) for quantizer in named.values())
    return named  # type: ignore[return-value]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("file", golden_files("qsci_attention_*"))
def test_golden_attention_with_shifted_queries_and_keys(file: Path, form: type[TemporalAttention]) -> None:
    arrays = {name: torch.tensor(array) for name, array in load(file).items()}
    x = arrays["x"]
    stock = form(x.shape[-1], int(arrays["heads"]))
    stock.load_state_dict({name: arrays[f"state/{name}"] for name in stock.state_dict()})
    network = quantized(stock, arrays["first_batch"], int(arrays["bits"]))
    attention = network.attentions["attention"]
    with torch.no_grad():
        attention.query.shift.copy_(arrays["state/moveq.bias"][0])
        attention.key.shift.copy_(arrays["state/movek.bias"][0])

    network.model.train()(arrays["first_batch"])
    steps = steps_of(network)
    for name, quantizer in steps.items():
        assert relative_error(quantizer.step, arrays[f"state/{name}.alpha"]) < 1e-5
        assert relative_error(quantizer.zero_point, arrays[f"state/{name}.zero_point"]) < 1e-5
        assert float(quantizer.signed) == float(arrays[f"state/{name}.signed"])

    y = network.model(x)
    (y * arrays["upstream"]).sum().backward()
    assert relative_error(y, arrays["output"]) < 1e-5
    for name, quantizer in steps.items():
        assert relative_error(quantizer.step.grad, arrays[f"grad/{name}.alpha"]) < 3e-5
    assert relative_error(attention.query.shift.grad, arrays["grad/moveq.bias"][0]) < 3e-5
    # a shift of the keys moves all scores of a query alike: nothing but rounding noise is left behind the softmax
    torch.testing.assert_close(attention.key.shift.grad, arrays["grad/movek.bias"][0], rtol=1e-3, atol=1e-5)
    for layer in ("qkv", "proj"):
        module = network.model.get_submodule(f"attention.{layer}")
        steps_grad = network.layers[f"attention.{layer}"].weight.step.grad
        assert relative_error(steps_grad.flatten(), arrays[f"grad/{layer}.alpha"]) < 3e-5
        assert relative_error(module.weight.grad, arrays[f"grad/{layer}.weight"]) < 3e-5


@pytest.mark.parametrize("kind", FORMS)
def test_quantizers_off_is_the_float_network(kind: type[TemporalAttention]) -> None:
    torch.manual_seed(0)
    stock, x = kind(16, 4), torch.randn(3, 5, 16)
    network = quantized(stock, x)
    network.model.train()(x)
    attention = network.attentions["attention"]
    with torch.no_grad():
        attention.query.shift.fill_(0.5)
    assert not torch.allclose(network.model(x), stock(x), atol=1e-6)
    for quantizer in network.quantizers():
        quantizer.mode = Mode.OFF
    torch.testing.assert_close(network.model(x), stock(x))


def test_the_three_spellings_of_an_attention_are_quantized_alike() -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 5, 16)
    stock = TemporalAttention(16, 4)
    outputs = []
    for kind in FORMS:
        model = kind(16, 4)
        model.load_state_dict(stock.state_dict())
        network = quantized(model, x, bits=3)
        with torch.no_grad():
            network.attentions["attention"].query.shift.copy_(torch.tensor([0.1, -0.2, 0.3, 0]).reshape(4, 1, 1))
        outputs.append(network.model.train()(x))
    for output in outputs[1:]:
        torch.testing.assert_close(output, outputs[0])


@pytest.mark.parametrize("settings", [{}, {"is_causal": True}, {"enable_gqa": True}])
def test_a_fused_call_keeps_its_mask_and_groups(settings: dict[str, bool]) -> None:
    class Attention(nn.Module):
        def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return F.scaled_dot_product_attention(q, k, v, **settings)

    torch.manual_seed(0)
    grouped = settings.get("enable_gqa", False)
    q, k, v = torch.randn(2, 4, 6, 8), *(torch.randn(2, 2 if grouped else 4, 6, 8) for _ in range(2))
    module = Attention()
    float_output = module(q, k, v)
    operands = [LearnedStepActivation(8, integer=True) for _ in range(4)]
    attach_attention(
        module,
        AttentionQuantizers(
            ShiftedQuantizer(operands[0], 4),
            ShiftedQuantizer(operands[1], 2 if grouped else 4),
            *operands[2:],
            fused=True,
        ),
    )
    module.train()(q, k, v)
    error = (module(q, k, v) - float_output).abs().mean() / float_output.abs().mean()
    assert 0 < error < 0.05


def test_an_attention_mask_of_numbers_and_of_flags() -> None:
    class Attention(nn.Module):
        def forward(self, q: Tensor, mask: Tensor) -> Tensor:
            return F.scaled_dot_product_attention(q, q, q, mask)

    torch.manual_seed(0)
    module, q = Attention(), torch.randn(2, 2, 4, 8)
    flags = torch.ones(4, 4).tril().bool()
    operands = [LearnedStepActivation(8, integer=True) for _ in range(4)]
    attach_attention(
        module,
        AttentionQuantizers(ShiftedQuantizer(operands[0]), ShiftedQuantizer(operands[1]), *operands[2:], fused=True),
    )
    numbers = torch.zeros(4, 4).masked_fill(~flags, -torch.inf)
    module.train()(q, flags)
    assert torch.equal(module(q, flags), module(q, numbers))


def test_a_failing_forward_leaves_no_interception_behind() -> None:
    class Breaks(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError("no")

    module = Breaks()
    step = LearnedStepActivation(4)
    attach_attention(module, AttentionQuantizers(ShiftedQuantizer(step), ShiftedQuantizer(step), step, step))
    with pytest.raises(RuntimeError, match="no"):
        module(torch.zeros(1))
    a = torch.randn(2, 3, 4)
    assert torch.equal(a @ a.transpose(1, 2), torch.bmm(a, a.transpose(1, 2)))
    assert not step.calibrated


def test_copies_and_rebuilt_quantizers_give_the_same_numbers() -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 5, 16)
    network = quantized(ScaledFirst(16, 4), x)
    network.model.train()(x)
    y = network.model.eval()(x)
    assert torch.equal(copy.deepcopy(network.model)(x), y)
    attention = network.attentions["attention"]
    again = rebuild(describe(attention))
    again.load_state_dict(attention.state_dict())
    q = torch.randn(2, 4, 5, 2)
    assert torch.equal(again.query(q), attention.query(q))
    assert (again.scores, again.context, again.query.scale) == (0, 1, attention.query.scale)

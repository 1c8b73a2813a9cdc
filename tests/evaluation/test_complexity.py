from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from qsci_plugins.architectures.sr.edsr import EDSR
from qsci_plugins.errors import UserError
from qsci_plugins.evaluation.complexity import (
    cadyq_bitops,
    count_macs,
    feature_average_bits,
    ops,
    qsci_ops,
    weight_activation_bitops,
)


def test_edsr_baseline_at_720p_output_as_published() -> None:
    macs = count_macs(EDSR(scale=4, mean_shift=False), (1, 3, 180, 320))
    blocks = [f"body.{block}.body.{conv}" for block in range(16) for conv in (0, 2)]
    assert sum(macs.values()) == 114_230_476_800
    assert sum(macs[name] for name in blocks) == 67_947_724_800
    assert list(macs) == ["head.0", *blocks, "body.16", "tail.0.0", "tail.0.2", "tail.1"]


def test_mean_shift_convolutions_are_listed_apart() -> None:
    macs = count_macs(EDSR(blocks=1, width=4, scale=2), (1, 3, 10, 8))
    assert macs["sub_mean"] == 9 * 80
    assert macs["add_mean"] == 9 * 320


@pytest.mark.parametrize(
    ("layer", "shape", "expected"),
    [
        (nn.Conv2d(4, 6, 3, padding=1), (2, 4, 5, 7), 2 * 35 * 4 * 6 * 9),
        (nn.Conv2d(4, 6, 3, stride=2, groups=2), (1, 4, 9, 9), 16 * 2 * 6 * 9),
        (nn.Conv3d(2, 3, (1, 3, 3), padding=(0, 1, 1)), (1, 2, 4, 5, 6), 120 * 2 * 3 * 9),
        (nn.Conv1d(2, 3, 5), (1, 2, 12), 8 * 2 * 3 * 5),
        (nn.ConvTranspose2d(4, 6, 4, stride=2, padding=1), (1, 4, 5, 7), 35 * 4 * 6 * 16),
        (nn.ConvTranspose3d(4, 6, 2, stride=2, groups=2), (1, 4, 2, 3, 5), 30 * 4 * 3 * 8),
        (nn.Linear(8, 5), (2, 3, 7, 8), 42 * 8 * 5),
        (nn.Linear(8, 5, bias=False), (8,), 40),
    ],
)
def test_layers_by_hand(layer: nn.Module, shape: tuple[int, ...], expected: int) -> None:
    assert count_macs(nn.Sequential(layer), shape) == {"0": expected}
    assert count_macs(layer, shape) == {"model": expected}


class Attention(nn.Module):
    """One attention over (N,T,C), written in the way that `form` names."""

    def __init__(self, form: str, width: int = 8) -> None:
        super().__init__()
        self.form = form
        self.qkv = nn.Linear(width, 3 * width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        if self.form == "operator":
            return (q @ k.transpose(1, 2)).softmax(-1) @ v
        if self.form == "einsum":
            return torch.einsum("bij,bjd->bid", torch.einsum("bid,bjd->bij", q, k).softmax(-1), v)
        return F.scaled_dot_product_attention(q, k, v)


@pytest.mark.parametrize("form", ["operator", "einsum", "fused"])
def test_attention_products_come_under_their_owner(form: str) -> None:
    macs = count_macs(nn.ModuleDict({"attn": Attention(form)})["attn"], (2, 5, 8))
    assert macs == {"qkv": 2 * 5 * 8 * 24, "matmul_0": 2 * 5 * 5 * 8, "matmul_1": 2 * 5 * 5 * 8}
    nested = count_macs(nn.Sequential(nn.Identity(), Attention(form)), (2, 5, 8))
    assert list(nested) == ["1.qkv", "1/matmul_0", "1/matmul_1"]


def test_torch_attention_module_is_not_hidden_by_its_fast_path() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attn = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.attn(x, x, x)[0]

    enabled = torch.backends.mha.get_fastpath_enabled()
    macs = count_macs(Block(), (2, 5, 8))
    assert sum(macs.values()) == 2 * (5 * 8 * 24 + 2 * 5 * 5 * 8 + 5 * 8 * 8)
    assert all(name.startswith("attn/matmul_") for name in macs)
    assert torch.backends.mha.get_fastpath_enabled() == enabled


def test_what_is_used_twice_counts_twice_under_one_name() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(2, 2, 3, padding=1)
            self.attn = Attention("operator")

        def forward(self, x: Tensor) -> Tensor:
            tokens = self.conv(self.conv(x)).flatten(2)
            return self.attn(self.attn(tokens))

    macs = count_macs(Twice(), (1, 2, 2, 4))
    assert macs == {
        "conv": 2 * 8 * 2 * 2 * 9,
        "attn.qkv": 2 * 2 * 8 * 24,
        "attn/matmul_0": 2 * 2 * 2 * 8,
        "attn/matmul_1": 2 * 2 * 2 * 8,
    }


def test_functional_convolution_and_several_inputs() -> None:
    class Masked(nn.Module):
        def forward(self, x: Tensor, mask: Tensor) -> Tensor:
            return F.conv2d(x * mask, torch.ones(4, 3, 3, 3))

    assert count_macs(Masked(), (1, 3, 6, 6), (6, 6)) == {"conv_0": 16 * 3 * 4 * 9}


def test_the_model_is_left_alone_and_nothing_is_computed() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    count_macs(model, (64, 3, 20_000, 20_000))  # 300 GB if it were real
    assert model.training
    assert all(module.training for module in model)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    for name, tensor in model.state_dict().items():
        assert type(tensor) is Tensor
        assert torch.equal(tensor, before[name])


def test_values_that_decide_the_course_are_an_error() -> None:
    class Choosing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x @ x if x.mean() > 0 else x

    with pytest.raises(UserError, match="Choosing: what it does depends on pixel values"):
        count_macs(Choosing(), (4, 4))


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 3), st.integers(4, 40), st.integers(4, 40))
def test_macs_of_a_convolutional_network_follow_the_area(batch: int, height: int, width: int) -> None:
    model = EDSR(blocks=1, width=2, scale=2, mean_shift=False)
    unit = sum(count_macs(model, (1, 3, 4, 4)).values()) // 16
    assert sum(count_macs(model, (batch, 3, height, width)).values()) == unit * batch * height * width


MACS = {"head": 10, "body.0": 100, "body.1": 300, "tail": 50}


def test_cadyq_by_hand() -> None:
    bits = {"body.0": (8.0, 4.0), "body.1": (8.0, 8.0)}
    assert feature_average_bits(bits) == 6.0
    assert cadyq_bitops(MACS, bits) == pytest.approx(60 + 0.25 * 6 / 32 * 400)
    assert cadyq_bitops(MACS, bits, fab=5.0) == pytest.approx(60 + 0.25 * 5 / 32 * 400)
    assert cadyq_bitops(MACS, {}) == 460


@pytest.mark.parametrize(("bits", "factor"), [(8, 1 / 4), (4, 1 / 8), (3, 1 / 16), (2, 1 / 32), (32, 1.0)])
def test_qsci_factors_of_the_paper(bits: int, factor: float) -> None:
    assert qsci_ops(MACS, {"body.1": (bits, bits)}) == pytest.approx(160 + 300 * factor)


def test_qsci_between_the_papers_widths() -> None:
    assert qsci_ops(MACS, {"body.1": (4, 6)}) == pytest.approx(160 + 300 * 3 / 16)
    assert qsci_ops(MACS, {"body.1": (1, 1)}) == pytest.approx(160 + 300 / 64)


def test_qsci_table_of_the_paper() -> None:
    # EfficientSCI-S, 563.41 GMAC: the paper's 140.95 G at 8 bits is a quarter of its 563.87 G
    assert qsci_ops({"all": 563_870}, {"all": (8, 8)}) == pytest.approx(140_950, rel=1e-3)


def test_weight_activation_by_hand() -> None:
    assert weight_activation_bitops(MACS, {"body.0": (4, 3.5)}) == pytest.approx(360 * 1024 + 100 * 14)


@given(st.floats(2, 32), st.floats(2, 32))
def test_fewer_bits_never_cost_more(first: float, second: float) -> None:
    low, high = sorted((first, second))
    for measure in (cadyq_bitops, qsci_ops, weight_activation_bitops):
        assert measure(MACS, {"body.1": (low, low)}) <= measure(MACS, {"body.1": (high, high)})


def test_ops_collects_all_of_them() -> None:
    bits = {"body.0": (8.0, 4.0)}
    assert ops(MACS, bits, fab=3.0) == {
        "macs": 460.0,
        "quantized_macs": 100.0,
        "cadyq_bitops": cadyq_bitops(MACS, bits, 3.0),
        "qsci_ops": qsci_ops(MACS, bits),
        "weight_activation_bitops": weight_activation_bitops(MACS, bits),
    }


def test_unknown_layer_names_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"'body.2'.*nearest is 'body.[01]'"):
        ops(MACS, {"body.2": (8, 8)})

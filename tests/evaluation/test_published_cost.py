from __future__ import annotations

import pytest
from torch import nn

from qsci_plugins.architectures.registry import load_network
from qsci_plugins.evaluation.complexity import count_macs, qsci_ops
from qsci_plugins.evaluation.published_cost import count_activations, product_bits, published_cost

SHAPES = ((1, 256, 256), (1, 8, 256, 256), (1, 256, 256))


@pytest.fixture(scope="module")
def small() -> nn.Module:
    return load_network("efficientsci_s", None).module


def test_the_float_network_has_the_published_size(small: nn.Module) -> None:
    cost = published_cost(small, SHAPES, 32)
    assert cost.macs / 1e9 == pytest.approx(563.41, abs=0.005)
    assert cost.ops / 1e9 == pytest.approx(563.87, abs=0.005)
    assert cost.parameters / 1e6 == pytest.approx(3.777, abs=0.0005)


@pytest.mark.parametrize(
    ("bits", "shortcuts", "operations", "published", "parameters"),
    [
        (8, (), 140.97, 140.95, 0.945),
        (4, ("fem.*", "vrm.*"), 72.64, 72.69, 0.483),
        (3, ("fem.*", "vrm.*"), 37.40, 37.47, 0.365),
        (2, ("fem.*", "vrm.*"), 19.78, 19.85, 0.247),
    ],
)
def test_the_table_of_the_paper(
    small: nn.Module, bits: float, shortcuts: tuple[str, ...], operations: float, published: float, parameters: float
) -> None:
    cost = published_cost(small, SHAPES, bits, shortcuts)
    assert cost.ops / 1e9 == pytest.approx(operations, abs=0.005)
    assert cost.ops / 1e9 == pytest.approx(published, abs=0.1)
    # the paper starts from 3.78 M, rounded
    assert cost.parameters / 1e6 == pytest.approx(parameters, abs=0.001)


def test_activations_are_counted_by_value_and_call() -> None:
    activation = nn.ReLU()
    model = nn.Sequential(nn.Conv2d(1, 3, 1), activation, nn.Conv2d(3, 2, 1), nn.LeakyReLU())
    assert count_activations(model, (2, 1, 4, 5)) == {"1": 120, "3": 80}
    assert not activation._forward_hooks
    twice = nn.Sequential(activation, nn.Identity(), activation)
    assert sum(count_activations(twice, (3,)).values()) == 6


def test_products_of_attention_take_the_bits_of_its_layers() -> None:
    module = load_network("efficientsci", None, in_ch=8, units=1, group_num=1).module
    macs = count_macs(module, (1, 8, 8), (1, 4, 8, 8), (1, 8, 8))
    bits = {name: (4.0, 3.0) for name in macs if "/" not in name and name != "fem.0"}
    extended = product_bits(macs, bits)
    products = [name for name in macs if "/" in name]
    assert len(products) == 2
    assert all(extended[name] == (3.0, 3.0) for name in products)
    assert qsci_ops(macs, extended) < qsci_ops(macs, bits)
    assert product_bits(macs, {"fem.0": (8, 8)}) == {"fem.0": (8, 8)}

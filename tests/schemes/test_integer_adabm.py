from __future__ import annotations

import pytest
import torch
from plain import apply_plain, calibrate
from torch import nn

from qsci_plugins.architectures.sr.edsr import EDSR
from qsci_plugins.schemes.adabm import allocate_layer_factors
from qsci_plugins.schemes.bit_width import MappedBitWidth
from qsci_plugins.schemes.placement import Placement
from qsci_plugins.schemes.reconstruction import reconstruct_weights
from qsci_plugins.schemes.registry import make_scheme
from qsci_plugins.schemes.scheme import LayerQuantizers
from qsci_plugins.schemes.weight import ChannelWeight


def test_bits_go_where_they_pay() -> None:
    mappings = [MappedBitWidth(4) for _ in range(4)]
    cost = torch.tensor([8.0, 1.0, 4.0, 0.5])

    def error() -> torch.Tensor:
        factors = torch.cat([mapping.measure.detach() for mapping in mappings])
        return (cost * 2.0**-factors).sum()

    assert allocate_layer_factors(mappings, error, mean_bits=3.75) == [1, -1, 0, -1]
    assert [int(mapping.neutral().item()) for mapping in mappings] == [5, 3, 4, 3]


@pytest.mark.parametrize("mean_bits", [3.0, 3.5, 4.0, 4.4, 5.0])
def test_an_allocation_never_passes_its_mean(mean_bits: float) -> None:
    mappings = [MappedBitWidth(4) for _ in range(5)]
    factors = allocate_layer_factors(
        mappings,
        lambda: sum(2.0 ** -m.measure.detach() for m in mappings).sum(),
        mean_bits,  # type: ignore[union-attr]
    )
    assert 4 + sum(factors) / 5 <= mean_bits + 1e-6
    assert 4 + (sum(factors) + 1) / 5 > mean_bits or factors == [1] * 5


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv2d(6, 8, 3, padding=1), (4, 6, 12, 12)),
        (nn.Conv2d(6, 8, 3, stride=2), (4, 6, 13, 13)),
        (nn.Conv3d(4, 6, (3, 1, 3), padding=(1, 0, 1)), (2, 4, 5, 8, 8)),
        (nn.Linear(12, 5, bias=False), (2, 30, 12)),
    ],
)
def test_reconstructed_weights_lie_on_the_grid_and_err_less(layer: nn.Module, shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator).cumsum(-1) + 1.0  # neighbours resemble each other, as in images
    weight = layer.weight.detach().clone()
    quantizer = ChannelWeight(weight, 3)
    model = nn.Sequential(layer)
    with torch.no_grad():
        expected = model(x)
        layer.weight.copy_(quantizer(weight))
        nearest_error = (model(x) - expected).square().mean()
        layer.weight.copy_(weight)
        changed = reconstruct_weights(model, {"0": LayerQuantizers(None, quantizer)}, lambda: model(x))
        torch.testing.assert_close(quantizer(layer.weight), layer.weight.detach())
        assert (model(x) - expected).square().mean() < 0.7 * nearest_error
    assert changed == ["0"]


def test_the_network_improves_and_keeps_to_its_mean_bits() -> None:
    torch.manual_seed(0)
    model = EDSR(blocks=3, width=12, scale=2).eval()
    with torch.no_grad():
        for block in model.body:  # channels of unequal size, as trained ones are
            for layer in block.modules():
                if isinstance(layer, nn.Conv2d):
                    layer.weight *= torch.linspace(0.2, 1.8, 12).reshape(-1, 1, 1, 1)
    images = torch.rand(6, 3, 24, 24, generator=torch.Generator().manual_seed(1)).mul(255).round()
    placement = Placement(("body.?.body.*",), ("head.*", "tail.*"))

    def error(**settings: object) -> tuple[float, float]:
        scheme = make_scheme({"name": "adabm", "weight_bits": 3, "activation_bits": 5, **settings})
        network = apply_plain(model, scheme, placement, images)
        calibrate(network, [images])
        with torch.no_grad():
            neutral = [q.activation.bit_width.neutral().item() for q in network.layers.values() if q.counted]
            return (network.model(images) - model(images)).square().mean().item(), sum(neutral) / len(neutral)

    plain = {"reconstruct_weights": False, "bias_correction": False}
    one_step, _ = error(**plain, channel_weights=False)
    nearest, _ = error(**plain)
    unbiased, _ = error(reconstruct_weights=False)
    together, _ = error()
    assert nearest < 0.95 * one_step
    assert unbiased < 0.95 * nearest
    assert together < 0.8 * unbiased
    _, mean_bits = error(mean_bits=4.5)
    assert mean_bits <= 4.5

from __future__ import annotations

import pytest
import torch

from qsci_plugins.schemes.activation import ImageGridActivation
from qsci_plugins.schemes.quantizer import Mode


def _calibrated(batches: list[torch.Tensor]) -> ImageGridActivation:
    activation = ImageGridActivation(3)
    activation.mode = Mode.OBSERVE
    for batch in batches:
        activation(batch)
    activation.initialise()
    activation.mode = Mode.ON
    return activation


def _images(seed: int, count: int = 4) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, 24, 24), generator=torch.Generator().manual_seed(seed)).float()


@pytest.mark.parametrize("scale", [1.0, 1 / 255, 2 / 255])
@pytest.mark.parametrize("mean", [(0.0, 0.0, 0.0), (0.4488, 0.4371, 0.4040), (0.5, 0.5, 0.5)])
def test_an_8_bit_image_loses_nothing(scale: float, mean: tuple[float, ...]) -> None:
    shift = 255 * torch.tensor(mean).view(1, 3, 1, 1)
    activation = _calibrated([(_images(seed) - shift) * scale for seed in range(2)])
    assert bool(activation.on_grid)
    x = (_images(9) - shift) * scale
    torch.testing.assert_close(activation(x), x, rtol=0, atol=1e-3 * scale)
    p = activation.qparams(x)
    assert p.offset is not None
    assert (p.offset.abs() <= p.scale * 0.5001).all()
    if mean[0] == mean[1]:
        assert p.high - p.low == 255  # one grid for all channels: plain INT8


def test_images_with_few_grey_levels_do_not_hide_the_grid() -> None:
    dark = torch.full((1, 3, 24, 24), 7.0)
    dark[..., 12:] = 8.0
    assert bool(_calibrated([_images(0), dark]).on_grid)


def test_features_are_no_image() -> None:
    activation = _calibrated([torch.randn(2, 3, 24, 24)])
    assert not bool(activation.on_grid)
    assert activation.qparams(torch.randn(1, 3, 4, 4)).offset is None

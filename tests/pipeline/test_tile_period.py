"""Tiles begin where a network's strides and windows do, so that they show what the whole picture would."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from spandrel.architectures.SwinIR import SwinIR
from torch import Tensor, nn
from torch.nn import functional as F

from qsci_plugins.architectures.network import Network
from qsci_plugins.openvino.tiling import DEFAULT_BLEND, cut_tile, join, plan_axis
from qsci_plugins.pipeline.tile_period import find_period


class Strided(nn.Module):
    """Down by `stride` and up again, and with `statistics` a factor of the whole image's."""

    def __init__(self, stride: int, statistics: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stride, self.statistics = stride, statistics
        self.down = nn.Conv2d(3, 3 * stride**2, stride, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = F.pixel_shuffle(self.down(x), self.stride)
        return y * y.std((2, 3), keepdim=True) * 5 if self.statistics else y


def _swinir() -> nn.Module:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"img_size": 32, "embed_dim": 12, "depths": [2], "num_heads": [2], "window_size": 8}
    module = SwinIR(upscale=2, upsampler="pixelshuffledirect", mlp_ratio=1.0, **sizes).eval()
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, nn.Linear):  # as small as they begin, attention is hardly seen
                layer.weight *= 12
    return module


@pytest.mark.parametrize(
    ("module", "scale", "period"),
    [(Strided(1), 1, 1), (Strided(4), 1, 4), (Strided(7), 1, 7), (_swinir(), 2, 8)],
    ids=["none", "strides", "of seven", "windows"],
)
def test_the_period_is_found(module: nn.Module, scale: int, period: int) -> None:
    if isinstance(module, Strided):
        module.window_size = 7  # type: ignore[assignment]
        multiple = module.stride
    else:
        multiple = 1
    network = Network(module, "any", scale, 1.0, size_multiple=multiple)
    found = find_period(network, (64, 64))
    assert found.period == period
    assert found.decibels is not None
    assert found.decibels > 60
    assert not found.note


def test_a_network_with_the_statistics_of_the_whole_image_is_named() -> None:
    found = find_period(Network(Strided(4, True), "sums up", 1, 1.0, size_multiple=4), (64, 64))
    assert found.period == 4
    assert found.decibels is not None
    assert f"tiled pictures are {found.decibels:.0f} dB from untiled ones" in found.note


def test_a_tile_too_small_for_the_period_is_said() -> None:
    found = find_period(Network(Strided(32), "wide", 1, 1.0, size_multiple=32), (32, 32))
    assert found.period == 16
    assert "repeats every 32 pixels; tiles of 32 are too small" in found.note


@torch.no_grad()
def test_tiles_at_the_period_are_60_db_from_the_untiled_network() -> None:
    module = _swinir()
    image = np.random.default_rng(0).random((100, 131, 3), dtype=np.float32)

    def run(tile: np.ndarray) -> np.ndarray:
        return module(torch.from_numpy(tile).permute(2, 0, 1)[None])[0].permute(1, 2, 0).numpy()

    def tiled(period: int) -> np.ndarray:
        rows, columns = (plan_axis(length, 64, 16, DEFAULT_BLEND, period) for length in image.shape[:2])
        lines = (
            np.concatenate(list(join((run(cut_tile(image, y, x, 64, 64)) for x in columns.starts), columns, 2, 1)), 1)
            for y in rows.starts
        )
        return np.concatenate(list(join(lines, rows, 2, 0)))

    whole = run(image)
    assert tiled(8).shape == whole.shape
    error = {period: 10 * np.log10(1 / np.square(tiled(period) - whole).mean()) for period in (1, 8)}
    assert error[8] > max(60, error[1] + 6), error

"""A quantized EfficientSCI from its measurement to frames: in torch, exported, and exported in tiles."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from qsci_plugins.architectures.network import Network
from qsci_plugins.architectures.registry import load_network
from qsci_plugins.data import mask_sum, measure, random_mask, synthetic_scene
from qsci_plugins.evaluation.torch_networks import TorchReconstructor
from qsci_plugins.nncf.backend import quantize
from qsci_plugins.openvino.export import export_reconstructor
from qsci_plugins.openvino.reconstructor import Reconstructor
from qsci_plugins.schemes.placement import Placement
from qsci_plugins.schemes.registry import make_scheme
from qsci_plugins.schemes.scheme import QuantizedNetwork

FRAMES, HEIGHT, WIDTH = 4, 96, 104


@pytest.fixture(scope="module")
def snapshot() -> tuple[np.ndarray, np.ndarray]:
    """A measurement and its mask."""
    mask = random_mask(FRAMES, HEIGHT, WIDTH)
    return measure(synthetic_scene(FRAMES, HEIGHT, WIDTH).astype(np.float32) / 255, mask), mask


@pytest.fixture(scope="module")
def quantized(snapshot: tuple[np.ndarray, np.ndarray]) -> tuple[Network, QuantizedNetwork]:
    network = load_network("efficientsci", None, in_ch=8, units=1, group_num=1)
    measurement, mask = snapshot
    batch = tuple(torch.from_numpy(part)[None] for part in (measurement, mask, mask_sum(mask)))
    scheme = make_scheme({"name": "qsci", "weight_bits": 8, "activation_bits": 8, "form": "integer"})
    return network, quantize(network.module, scheme, Placement(), [batch], network.value_range)


@pytest.fixture(scope="module")
def folder(quantized: tuple[Network, QuantizedNetwork], tmp_path_factory: pytest.TempPathFactory) -> Path:
    network, done = quantized
    assert network.receptive_radius is not None
    target = tmp_path_factory.mktemp("sci") / "model"
    export_reconstructor(
        done, network.module, target, tile=(64, 64), frames=FRAMES, mode="static", overlap=network.receptive_radius
    )
    return target


@pytest.mark.parametrize(("height", "width"), [(64, 64), (96, 104), (81, 93)])
def test_the_exported_network_in_tiles_is_the_one_in_torch(
    quantized: tuple[Network, QuantizedNetwork],
    snapshot: tuple[np.ndarray, np.ndarray],
    folder: Path,
    height: int,
    width: int,
) -> None:
    network, done = quantized
    measurement, mask = snapshot[0][:height, :width], snapshot[1][:, :height, :width]
    reconstructor = Reconstructor(folder, mask)
    frames = reconstructor.reconstruct(measurement)
    expected = TorchReconstructor(done.model, mask, network.size_multiple).reconstruct(measurement)
    radius = network.receptive_radius or 0
    # an odd border is mirrored further for the tiles than for the whole
    inside = np.s_[:, : height - radius * (height % 2), : width - radius * (width % 2)]
    assert np.sqrt(np.mean((frames - expected)[inside] ** 2)) < 2e-4
    assert (reconstructor.tiles > 1) == ((height, width) != (64, 64))


def test_a_long_stream_takes_no_more_memory_than_a_short_one(
    snapshot: tuple[np.ndarray, np.ndarray], folder: Path
) -> None:
    measurement, mask = snapshot
    reconstructor = Reconstructor(folder, mask, threads=1)
    unit = 1 if sys.platform == "darwin" else 1024

    def peak(count: int) -> int:
        for _ in reconstructor.stream(measurement for _ in range(count)):
            pass
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit

    short = peak(5)
    # the frames of 60 measurements alone would be 9.6 MB
    assert peak(60) - short < 4e6

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_networks import SMALL
from torch import Tensor

from qsci_plugins.architectures.network import Network
from qsci_plugins.architectures.registry import load_network

_KNOWN = [case for case in SMALL if case[0] != "stformer"]


def _reach(network: Network, size: int) -> int:
    """How far from input cell (row, column) of a grid of `size_multiple` the output pixels of that cell look."""
    with torch.no_grad():
        for name, parameter in network.module.named_parameters():
            if "mean" not in name:  # nothing cancels, and no ReLU is ever shut
                parameter.abs_().add_(1e-3)
    shape = (1, 3, size, size) if network.task == "sr" else (1, size, size)
    # brighter than the mean that some networks subtract
    image = (torch.rand(shape, dtype=torch.float64) + 1) * network.value_range
    image.requires_grad_(True)
    module = network.module.double()
    cell = size // 2 // network.size_multiple * network.size_multiple
    if network.task == "sr":
        output = module(image)
    else:
        mask = torch.ones(1, 1, size, size, dtype=torch.float64)
        output = module(image, mask, mask[:, 0])
    reach = 0
    for phase in range(network.scale * network.size_multiple):
        place = cell * network.scale + phase
        gradient: Tensor = torch.autograd.grad(output[..., place, place].sum(), image, retain_graph=True)[0]
        touched = gradient.abs().reshape(-1, size, size).sum(0).sum(0).nonzero()
        own = place // network.scale
        reach = max(reach, own - int(touched.min()), int(touched.max()) - own)
    return reach


@pytest.mark.parametrize(("architecture", "scale", "settings"), _KNOWN)
def test_an_output_pixel_looks_exactly_as_far_as_the_network_says(
    architecture: str, scale: int | None, settings: dict[str, Any]
) -> None:
    network = load_network(architecture, None, scale, **settings)
    assert network.receptive_radius is not None
    assert _reach(network, 2 * network.receptive_radius + 6) == network.receptive_radius

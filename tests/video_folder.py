"""A small network that reconstructs video, and a model folder with it that no quantization was needed for."""

from __future__ import annotations

from pathlib import Path

import openvino
import torch
from torch import Tensor, nn

from qsci_plugins.openvino.folder import name_files, write_folder
from qsci_plugins.openvino.ir import pack
from qsci_plugins.openvino.manifest import Manifest, Route

__all__ = ["RADIUS", "TILE", "Strided", "exported"]

TILE = (28, 32)
#: the strided convolution looks one pixel of half the size, two of the whole, around
RADIUS = 3


class Strided(nn.Module):
    """Halves the size and doubles it again, as EfficientSCI does; colour where `channels` is 3."""

    def __init__(self, channels: int = 1) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.down = nn.Conv3d(1, 4, (3, 3, 3), stride=(1, 2, 2), padding=1)
        self.up = nn.Conv3d(4, 4 * channels, 1)

    def forward(self, measurement: Tensor, mask: Tensor, total: Tensor) -> Tensor:
        mean = measurement / total
        x = self.up(self.down((mean.unsqueeze(1) * (1 + mask)).unsqueeze(1)))
        batch, width, frames, height, breadth = x.shape
        x = nn.functional.pixel_shuffle(x.transpose(1, 2).reshape(batch * frames, width, height, breadth), 2)
        x = x.reshape(batch, frames, width // 4, 2 * height, 2 * breadth).transpose(1, 2)
        return x if width == 12 else x[:, 0]


def exported(folder: Path, networks: dict[int, nn.Module], frames: int, channels: int = 1) -> Path:
    """Writes a model folder with a graph for every image factor."""
    shapes = ([1, *TILE], [1, frames, *TILE], [1, *TILE])
    examples = tuple(torch.ones(*shape) for shape in shapes)
    models = {}
    for factor, network in networks.items():
        model = openvino.convert_model(network.eval(), example_input=examples, input=[list(shape) for shape in shapes])
        for port, name in zip(model.inputs, ("measurement", "mask", "mask_sum"), strict=True):
            port.get_tensor().set_names({name})
            port.get_node().set_friendly_name(name)
        models[f"g{factor + 1}"] = model
    graphs, constants = pack(models)
    entries, weights, files = name_files({"abc"[int(name[1])]: graph for name, graph in graphs.items()}, constants)
    manifest = Manifest(
        scale=1,
        tile=TILE,
        overlap=RADIUS,
        value_range=1.0,
        weights=weights,
        routes=tuple(Route(factor, entries["abc"[factor + 1]], {}, 32.0) for factor in networks),
        thresholds=(10.0, 100.0) if len(networks) > 1 else None,
        task="sci",
        frames=frames,
        channels=channels,
    )
    write_folder(folder, manifest, files)
    return folder

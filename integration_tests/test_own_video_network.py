"""Q-SCI's parts in a video network of the user's own, from a recipe: high-quality branches and shifted attention."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import qsci_plugins
from qsci_plugins.recipes import make_recipe

#: nothing of it is this package's: layer names, the attention through torch's fused function, a strided convolution
NETWORK = """
import torch
from torch import nn
from torch.nn import functional as F


class Mixer(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.to_qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x):
        batch, width, frames, height, breadth = x.shape
        tokens = x.permute(0, 3, 4, 2, 1).reshape(-1, frames, width)
        q, k, v = self.to_qkv(tokens).reshape(-1, frames, 3, 2, width // 2).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(tokens.shape)
        return x + self.out(mixed).reshape(batch, height, breadth, frames, width).permute(0, 4, 3, 1, 2)


class Net(nn.Module):
    task, size_multiple, value_range, channels = "sci", 2, 1.0, 1

    def __init__(self, width):
        super().__init__()
        self.look = nn.Conv3d(1, width, (1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1))
        self.mix = Mixer(width)
        self.show = nn.ConvTranspose3d(width, 1, (1, 2, 2), stride=(1, 2, 2))

    def forward(self, measurement, mask, mask_sum):
        mean = (measurement / mask_sum).unsqueeze(1)
        return mean + self.show(self.mix(self.look((mean * (1 + mask)).unsqueeze(1)).relu())).squeeze(1)
"""


@pytest.mark.parametrize("backend", ["nncf", "brevitas"])
def test_branches_and_shift_go_into_a_network_of_the_users_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    (tmp_path / f"own_video_{backend}.py").write_text(NETWORK)
    monkeypatch.chdir(tmp_path)
    mapping: dict[str, Any] = {
        "version": 1,
        "model": {"architecture": f"python:own_video_{backend}:Net", "settings": {"width": 8}},
        "backend": backend,
        "shortcuts": ["look"],
        "scheme": {"name": "qsci", "weight_bits": 4, "activation_bits": 4},
        "clips": {"size": 32, "frames": 3, "resize": False},
        "calibrate": {"count": 2, "patch": 16, "batch": 2},
        "train": {"phases": [{"crop": 16, "steps": 3, "rate": 1e-3}], "batch": 2, "precision": "float32", "cpu": True},
        "evaluate": [{"set": "builtin", "measurements": 1}],
        "export": {"openvino": {"mode": "static", "tile": [64, 64]}},
    }
    output = qsci_plugins.run(make_recipe(mapping), "out")
    metrics = json.loads((output / "metrics.json").read_text())
    (row,) = metrics["sets"].values()
    assert abs(row["torch"]["psnr"] - row["openvino"]["psnr"]) < 0.05
    assert (metrics["bits"]["look.layer"]["weight"], metrics["bits"]["look.shortcut"]["weight"]) == (4, 8)
    names = torch.load("out/checkpoint.pt", weights_only=True)["state_dict"]
    assert any("shortcut" in name for name in names)
    shifts = [tensor for name, tensor in names.items() if name.endswith(".shift")]
    assert len(shifts) == 2
    assert all(shift.abs().max() > 0 for shift in shifts)  # learned, from 0 on

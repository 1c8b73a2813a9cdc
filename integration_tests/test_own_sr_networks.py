"""Published networks that this package does not know, brought in as a user's own code: nothing depends on our list."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qsci_plugins.pipeline.run import run_recipe
from qsci_plugins.recipes import Recipe, find_recipe, make_recipe, read_recipe

_DATA = Path(os.environ.get("QSCI_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
_needs_data = pytest.mark.skipif(not _DATA.is_dir(), reason=f"no shared data at {_DATA}; set QSCI_DATA")


class WDSRBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(32, 192, 3, padding=1), nn.ReLU(), nn.Conv2d(192, 32, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class WDSR(nn.Module):
    """WDSR-b (Yu et al., 2018) with full convolutions and without weight normalisation."""

    scale = 4
    value_range = 255.0

    def __init__(self, depth: int = 8) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, 32, 3)
        self.body = nn.Sequential(*(WDSRBlock() for _ in range(depth)))
        self.tail = nn.Conv2d(32, 48, 3)
        self.skip = nn.Conv2d(3, 48, 5)
        self.register_buffer("mean", torch.tensor([0.4488, 0.4371, 0.4040]).view(1, 3, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad((x / 255 - self.mean) * 2, (2, 2, 2, 2), mode="replicate")
        y = F.pixel_shuffle(self.tail(self.body(self.head(x))) + self.skip(x), 4)
        return (y / 2 + self.mean) * 255


class ESA(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.conv_f = nn.Conv2d(width, 12, 1), nn.Conv2d(12, 12, 1)
        self.conv_max = nn.Conv2d(12, 12, 3, padding=1)
        self.conv2 = nn.Conv2d(12, 12, 3, stride=2)
        self.conv3, self.conv3_ = nn.Conv2d(12, 12, 3, padding=1), nn.Conv2d(12, 12, 3, padding=1)
        self.conv4 = nn.Conv2d(12, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        narrow = self.conv1(x)
        wide = F.max_pool2d(self.conv2(narrow), kernel_size=7, stride=3)
        wide = self.conv3_(torch.relu(self.conv3(torch.relu(self.conv_max(wide)))))
        wide = F.interpolate(wide, x.shape[2:], mode="bilinear", align_corners=False)
        return x * torch.sigmoid(self.conv4(wide + self.conv_f(narrow)))


class RFDB(nn.Module):
    def __init__(self, width: int = 50) -> None:
        super().__init__()
        half = width // 2
        for index in (1, 2, 3):
            self.add_module(f"c{index}_d", nn.Conv2d(width, half, 1))
            self.add_module(f"c{index}_r", nn.Conv2d(width, width, 3, padding=1))
        self.c4 = nn.Conv2d(width, half, 3, padding=1)
        self.c5 = nn.Conv2d(4 * half, width, 1)
        self.esa = ESA(width)

    def forward(self, x: Tensor) -> Tensor:
        distilled = []
        for index in (1, 2, 3):
            distilled.append(F.leaky_relu(self.get_submodule(f"c{index}_d")(x), 0.05))
            x = F.leaky_relu(self.get_submodule(f"c{index}_r")(x) + x, 0.05)
        return self.esa(self.c5(torch.cat([*distilled, F.leaky_relu(self.c4(x), 0.05)], 1)))


class RFDN(nn.Module):
    """RFDN (Liu et al., 2020)."""

    scale = 4
    value_range = 255.0

    def __init__(self) -> None:
        super().__init__()
        self.fea_conv = nn.Conv2d(3, 50, 3, padding=1)
        self.B1, self.B2, self.B3, self.B4 = RFDB(), RFDB(), RFDB(), RFDB()
        self.c = nn.Sequential(nn.Conv2d(200, 50, 1), nn.LeakyReLU(0.05))
        self.LR_conv = nn.Conv2d(50, 50, 3, padding=1)
        self.upsampler = nn.Sequential(nn.Conv2d(50, 48, 3, padding=1), nn.PixelShuffle(4))

    def forward(self, x: Tensor) -> Tensor:
        first = x = self.fea_conv(x)
        outputs = []
        for block in (self.B1, self.B2, self.B3, self.B4):
            outputs.append(x := block(x))
        return self.upsampler(self.LR_conv(self.c(torch.cat(outputs, 1))) + first)


class PixelAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(24, 24, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.conv(x))


class PAConv(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.k2 = nn.Conv2d(20, 20, 1)
        self.k3 = nn.Conv2d(20, 20, 3, padding=1, bias=False)
        self.k4 = nn.Conv2d(20, 20, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.k4(self.k3(x) * torch.sigmoid(self.k2(x)))


class SCPA(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1_a, self.conv1_b = nn.Conv2d(40, 20, 1, bias=False), nn.Conv2d(40, 20, 1, bias=False)
        self.k1 = nn.Sequential(nn.Conv2d(20, 20, 3, padding=1, bias=False))
        self.PAConv = PAConv()
        self.conv3 = nn.Conv2d(40, 40, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        a = F.leaky_relu(self.k1(F.leaky_relu(self.conv1_a(x), 0.2)), 0.2)
        b = F.leaky_relu(self.PAConv(F.leaky_relu(self.conv1_b(x), 0.2)), 0.2)
        return self.conv3(torch.cat([a, b], 1)) + x


class PAN(nn.Module):
    """PAN (Zhao et al., 2020); without a word about its range, which is then 0..1."""

    scale = 4

    def __init__(self, depth: int = 16) -> None:
        super().__init__()
        self.conv_first = nn.Conv2d(3, 40, 3, padding=1)
        self.SCPA_trunk = nn.Sequential(*(SCPA() for _ in range(depth)))
        self.trunk_conv = nn.Conv2d(40, 40, 3, padding=1)
        self.upconv1, self.upconv2 = nn.Conv2d(40, 24, 3, padding=1), nn.Conv2d(24, 24, 3, padding=1)
        self.att1, self.att2 = PixelAttention(), PixelAttention()
        self.HRconv1, self.HRconv2 = nn.Conv2d(24, 24, 3, padding=1), nn.Conv2d(24, 24, 3, padding=1)
        self.conv_last = nn.Conv2d(24, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv_first(x)
        y = y + self.trunk_conv(self.SCPA_trunk(y))
        y = self.att1(self.upconv1(F.interpolate(y, scale_factor=2.0, mode="nearest")))
        y = F.leaky_relu(self.HRconv1(F.leaky_relu(y, 0.2)), 0.2)
        y = self.att2(self.upconv2(F.interpolate(y, scale_factor=2.0, mode="nearest")))
        y = self.conv_last(F.leaky_relu(self.HRconv2(F.leaky_relu(y, 0.2)), 0.2))
        return y + F.interpolate(x, scale_factor=4.0, mode="bilinear", align_corners=False)


#: network, weights, PSNR-Y on Set5, the layers of the scheme's bits, settings of a smaller one
_OWN: list[tuple[str, str, float, str, dict[str, Any]]] = [
    ("WDSR", "wdsrb8_x4.pt", 32.03, "body.*", {"depth": 2}),
    ("RFDN", "rfdn_x4.pth", 32.16, "B[1-4].*", {}),
    ("PAN", "pan_x4.pth", 32.13, "SCPA_trunk.*", {"depth": 1}),
]


def recipe(network: str, targets: str, weights: Path | None, **changes: Any) -> Recipe:
    """A tiny recipe for one of the classes above."""
    model = {"architecture": f"python:{__name__}:{network}", "weights": None if weights is None else str(weights)}
    checked = make_recipe(
        {
            "version": 1,
            "model": model,
            "scheme": {"name": "adabm", "weight_bits": 4, "activation_bits": 4},
            "place": {"targets": [targets]},
            "calibrate": {"count": 2, "patch": 24, "batch": 2},
            "export": {"openvino": {"mode": "none"}},
            **changes,
        }
    )
    assert isinstance(checked, Recipe)
    return checked


@pytest.mark.parametrize(("network", "weights", "set5", "targets", "smaller"), _OWN, ids=lambda value: str(value))
def test_a_network_of_the_users_own_is_calibrated_and_fine_tuned(
    network: str, weights: str, set5: float, targets: str, smaller: dict[str, Any], tmp_path: Path
) -> None:
    small = recipe(network, targets, None, train={"steps": 2, "batch": 1, "precision": "float32"})
    small = small.model_copy(update={"model": small.model.model_copy(update={"settings": smaller})})
    metrics = json.loads((run_recipe(small, tmp_path / "out") / "metrics.json").read_text())
    assert metrics["network"]["scale"] == 4
    assert len(metrics["bits"]) > 3
    assert all(bits["weight"] == 4 and bits["activation"] < 6 for bits in metrics["bits"].values())
    assert metrics["operations"]["quantized"]["cadyq_bitops"] < metrics["operations"]["float"]["cadyq_bitops"]


@pytest.mark.slow
@_needs_data
@pytest.mark.parametrize(("network", "weights", "set5", "targets", "smaller"), _OWN, ids=lambda value: str(value))
def test_its_published_weights_have_their_psnr_and_keep_it_at_8_bits(
    network: str, weights: str, set5: float, targets: str, smaller: dict[str, Any], tmp_path: Path
) -> None:
    whole = recipe(
        network,
        targets,
        _DATA / "weights" / weights,
        scheme={"name": "adabm", "weight_bits": 8, "activation_bits": 8},
        calibrate={"count": 16, "patch": 48, "batch": 8},
        evaluate=[{"set": "Set5"}],
    )
    output = run_recipe(whole, tmp_path / "out", data=_DATA)
    quality = json.loads((output / "metrics.json").read_text())["sets"]["Set5"]
    assert quality["float"]["psnr"] == pytest.approx(set5, abs=0.02)
    assert quality["torch"]["psnr"] == pytest.approx(set5, abs=0.3)


@pytest.mark.slow
def test_swinir_light_is_quantized_at_its_published_size(tmp_path: Path) -> None:
    from spandrel.architectures.SwinIR import SwinIR

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sizes = {"img_size": 64, "window_size": 8, "depths": [6] * 4, "embed_dim": 60, "num_heads": [6] * 4}
        network = SwinIR(**sizes, mlp_ratio=2, upscale=4, upsampler="pixelshuffledirect", resi_connection="1conv")
    torch.save(network.state_dict(), tmp_path / "swinir.pth")
    small = ["calibrate={count: 2, patch: 16, batch: 2}", "train={steps: 1, batch: 1}", "evaluate=[]"]
    shipped = find_recipe("swinir_light_x4_adabm")
    checked = read_recipe(shipped, [*small, f"model.weights={tmp_path / 'swinir.pth'}", "export.openvino.mode=none"])
    assert isinstance(checked, Recipe)
    metrics = json.loads((run_recipe(checked, tmp_path / "out") / "metrics.json").read_text())
    assert metrics["network"]["architecture"] == "SwinIR"
    attention = [bits for name, bits in metrics["bits"].items() if name.endswith(("attn.qkv", "attn.proj", "mlp.fc1"))]
    assert len(attention) == 72
    assert all(4 <= bits["activation"] <= 8 for bits in attention)

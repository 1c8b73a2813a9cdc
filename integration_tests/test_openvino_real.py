"""A real network, exported: as good as in torch, a third of the size, faster than fp32, in little memory."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import pytest
import torch
from golden import data_folder
from openvino_networks import integer_layers

from qsci_plugins.architectures.sr.edsr import EDSR
from qsci_plugins.data.images import read_image
from qsci_plugins.evaluation.benchmark import evaluate_upscaler, find_set
from qsci_plugins.evaluation.latency import open_graph, time_in_turns
from qsci_plugins.nncf import backend
from qsci_plugins.openvino.convert import convert
from qsci_plugins.openvino.export import export_upscaler
from qsci_plugins.openvino.gradient import tile_gradient
from qsci_plugins.openvino.manifest import load_manifest
from qsci_plugins.openvino.precisions import Precision, has_bf16
from qsci_plugins.openvino.runtime import Upscaler
from qsci_plugins.schemes.placement import Placement
from qsci_plugins.schemes.registry import make_scheme
from qsci_plugins.schemes.scheme import QuantizedNetwork

pytestmark = pytest.mark.slow

TILE = (180, 320)
FORMS = {
    "w8a8": ({"weight_bits": 8, "activation_bits": 8, "image_mapping": False}, Placement(("*",))),
    "w4a4": ({"weight_bits": 4, "activation_bits": 4}, Placement(("body.*",), ("head.*", "tail.*"))),
}


class Exported:
    """EDSR-8 x2, quantized, exported with its float form beside it."""

    def __init__(self, form: str, folder: Path) -> None:
        settings, placement = FORMS[form]
        self.stock = EDSR(blocks=8, width=64, scale=2, mean_shift=False).eval()
        weights = data_folder() / "weights" / "edsr8_x2.pt"
        self.stock.load_state_dict(torch.load(weights, weights_only=True))
        photos = [read_image(file) for file in sorted((data_folder() / "sr" / "train").glob("*/*"))[::6]]
        patches = [torch.from_numpy(photo[30:94, 30:94].copy()) for photo in photos if min(photo.shape[:2]) >= 94]
        stacked = torch.stack(patches).permute(0, 3, 1, 2).float()
        scheme = make_scheme({"name": "adabm", **settings})
        self.network: QuantizedNetwork = backend.quantize(self.stock, scheme, placement, stacked.split(8), 255.0)
        self.folder = folder / "model"
        start = time.perf_counter()
        self.manifest = export_upscaler(self.network, self.stock, self.folder, tile=TILE, scale=2, overlap=20)
        self.seconds = time.perf_counter() - start
        self.float_file = folder / "float.xml"
        plain = convert(self.stock, (1, 3, *TILE), tuned=False)
        openvino.save_model(plain, self.float_file, compress_to_fp16=False)

    def in_torch(self, image: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            output = self.network.model(torch.from_numpy(image).permute(2, 0, 1)[None].float())
        return output[0].permute(1, 2, 0).clamp(0, 255).round().to(torch.uint8).numpy()

    def compiled(self, factor: int = 0, precision: Precision = "f32") -> Any:
        graph, weights = self.manifest.route(factor).graph.name, self.manifest.weights.name
        return open_graph(self.folder / graph, self.folder / weights, precision=precision, threads=2)


@pytest.fixture(scope="module", params=list(FORMS))
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return Exported(request.param, tmp_path_factory.mktemp(request.param))


def psnr(upscale: Callable[[np.ndarray], np.ndarray]) -> float:
    return evaluate_upscaler(upscale, find_set(data_folder(), "Set5", 2)).psnr_y


def test_psnr_on_set5_is_that_of_torch(exported: Exported) -> None:
    expected = psnr(exported.in_torch)
    precisions: list[Precision] = ["f32", "auto"]
    for precision in precisions:
        whole = Upscaler(exported.folder, tile="image", precision=precision)
        assert psnr(whole.upscale) == pytest.approx(expected, abs=0.02), precision
    if exported.manifest.thresholds is None:
        # without routes, cutting into tiles changes nothing either
        assert psnr(Upscaler(exported.folder).upscale) == pytest.approx(expected, abs=0.02)


def test_layers_run_in_integers_and_files_are_small(exported: Exported) -> None:
    for route in exported.manifest.routes:
        layers = integer_layers(exported.compiled(route.factor))
        assert set(layers) == set(exported.network.layers)
        assert all(layers.values())
    float_bytes = sum(file.stat().st_size for file in exported.float_file.parent.glob("float.*"))
    manifest = load_manifest(exported.folder)
    assert sum(file.bytes for file in (manifest.weights, *manifest.graphs())) <= 0.35 * float_bytes
    assert exported.seconds < 60  # 30 on an idle machine


def test_a_tile_takes_a_third_of_the_float_network(exported: Exported) -> None:
    models = {"fp32": open_graph(exported.float_file, threads=2), "f32": exported.compiled()}
    if has_bf16():
        models["bf16"] = exported.compiled(precision="bf16")
    latencies = time_in_turns(models, TILE, repeats=10)
    assert latencies["f32"].fast_ms <= 0.36 * latencies["fp32"].fast_ms
    tile = np.random.default_rng(0).integers(0, 256, (*TILE, 3), dtype=np.uint8)
    times = []
    for _ in range(20):
        start = time.perf_counter()
        tile_gradient(tile)
        times.append(1000 * (time.perf_counter() - start))
    assert min(times) <= 0.01 * latencies["f32"].fast_ms


@pytest.mark.skipif(os.name != "posix", reason="asks the system for the peak memory of a process")
@pytest.mark.parametrize("tile", [None, "fit"])
def test_memory_of_a_huge_photo(exported: Exported, tile: str | None) -> None:
    """8,000 x 6,000 to 16,000 x 12,000 pixels: the images themselves are 720 MB of it."""
    program = f"""
import resource
import numpy as np
from qsci_plugins.openvino.runtime import Upscaler
rows = np.arange(6000, dtype=np.uint32)[:, None]
image = np.empty((6000, 8000, 3), np.uint8)
for channel in range(3):
    image[..., channel] = (rows * (channel + 3) // 7 + np.arange(8000, dtype=np.uint32)) % 251
assert Upscaler({str(exported.folder)!r}, tile={tile!r}).upscale(image).shape == (12000, 16000, 3)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    kilobytes = int(done.stdout) / (1024 if sys.platform == "darwin" else 1)
    assert kilobytes * 1024 < 2.5e9

"""Attention and grouped 3-d convolutions compute what torch does on CPUs without VNNI too."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import openvino
import pytest
import torch
from plain import apply_plain, calibrate
from test_export_video import FRAMES, measured, quantized, stformer
from torch import Tensor, nn

from qsci_plugins.architectures.sci.efficientsci import TemporalAttention
from qsci_plugins.comparing.video_plain import write_plain
from qsci_plugins.evaluation.latency import open_graph
from qsci_plugins.openvino import precisions
from qsci_plugins.openvino.convert import convert_like
from qsci_plugins.openvino.export import export_reconstructor
from qsci_plugins.openvino.lowering import lower
from qsci_plugins.openvino.manifest import load_manifest
from qsci_plugins.openvino.precisions import compute_saturating_in_f32
from qsci_plugins.openvino.reconstructor import Reconstructor
from qsci_plugins.openvino.signature import VideoSignature
from qsci_plugins.schemes.placement import Placement
from qsci_plugins.schemes.registry import make_scheme

_RUN = """
import sys
import numpy as np
from qsci_plugins.evaluation.latency import open_graph
from qsci_plugins.openvino.precisions import cpu_saturates
given = np.load(sys.argv[2])
for exact in (True, False):
    np.save(f"{sys.argv[3]}/{exact}.npy", open_graph(sys.argv[1], threads=1, exact=exact)([given])[0])
print(cpu_saturates())
"""


def attention(bits: int) -> tuple[nn.Module, Tensor, Tensor]:
    """The lowered network, an input, and what torch makes of it."""
    torch.manual_seed(0)
    return _quantized(nn.Sequential(TemporalAttention(32, 4)), torch.randn(36, FRAMES, 32), bits)


def grouped(bits: int) -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    return _quantized(nn.Sequential(nn.Conv3d(16, 16, 3, groups=2)), torch.randn(1, 16, 4, 12, 12), bits)


def _quantized(stock: nn.Module, x: Tensor, bits: int) -> tuple[nn.Module, Tensor, Tensor]:
    settings = {"name": "qsci", "weight_bits": bits, "activation_bits": bits}
    if not isinstance(stock[0], TemporalAttention):  # type: ignore[index]
        settings["attention"] = []
    network = apply_plain(stock.eval(), make_scheme(settings), Placement(), x, 1.0)
    with torch.no_grad():
        for each in network.attentions.values():
            for operand in (each.query, each.key):
                operand.shift.copy_(torch.randn(4, 1, 1))  # type: ignore[union-attr]
        calibrate(network, [(x,)])
        network.model.eval()
        return lower(stock, network), x, network.model(x)


def wrong(actual: np.ndarray, expected: Tensor) -> float:
    """The share of values that are not torch's; one on a rounding edge moves its neighbourhood."""
    return float((np.abs(actual - expected.numpy()) > 1e-5 * expected.abs().max().item()).mean())


@pytest.mark.parametrize(("make", "bits"), [(attention, 8), (grouped, 8), (grouped, 4)])
def test_it_is_exact_where_a_cpu_would_saturate(make: object, bits: int, tmp_path: Path) -> None:
    lowered, x, expected = make(bits)  # type: ignore[operator]
    openvino.save_model(convert_like(lowered, (x,)), tmp_path / "m.xml", compress_to_fp16=False)
    np.save(tmp_path / "x.npy", x.numpy())
    for instructions in ("AVX2", "AVX512_CORE", "DEFAULT"):
        environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": instructions}
        arguments = [tmp_path / "m.xml", tmp_path / "x.npy", tmp_path]
        done = subprocess.run(
            [sys.executable, "-c", _RUN, *arguments], env=environment, check=True, capture_output=True, text=True
        )
        assert wrong(np.load(tmp_path / "True.npy"), expected) < 0.02
        if instructions == "AVX2" and platform.machine() in ("x86_64", "AMD64"):
            assert done.stdout.strip() == "True"
            assert wrong(np.load(tmp_path / "False.npy"), expected) > 0.1


@pytest.mark.parametrize("saturates", [True, False])
def test_only_a_cpu_that_saturates_has_it_changed(saturates: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precisions, "cpu_saturates", lambda: saturates)
    found = {}
    for make, bits in ((attention, 8), (attention, 4), (grouped, 8), (grouped, 2)):
        lowered, x, _ = make(bits)
        found[make.__name__, bits] = compute_saturating_in_f32(convert_like(lowered, (x,)))
    if saturates:
        assert found == {("attention", 8): 2, ("attention", 4): 2, ("grouped", 8): 1, ("grouped", 2): 1}
    else:
        assert not any(found.values())


def test_what_is_changed_has_the_same_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """On any CPU: the operands of the products, rounded in float."""
    monkeypatch.setattr(precisions, "cpu_saturates", lambda: True)
    for make in (attention, grouped):
        lowered, x, expected = make(8)
        assert wrong(open_graph(convert_like(lowered, (x,)), threads=1)([x.numpy()])[0], expected) < 0.02


def test_the_runtime_is_exact_and_leaves_graphs_of_no_scheme_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = []
    monkeypatch.setattr(
        "qsci_plugins.openvino.compiling.compute_saturating_in_f32",
        lambda graph: changed.append(compute_saturating_in_f32(graph)),
    )
    monkeypatch.setattr(precisions, "cpu_saturates", lambda: True)
    stock = stformer()
    network = quantized(stock, {"name": "qsci", "weight_bits": 8, "activation_bits": 8})
    inputs = measured(5)
    tile = inputs[0].shape[1:]
    mask = inputs[1][0].numpy()
    export_reconstructor(network, stock, tmp_path / "ours", tile=tile, frames=FRAMES, overlap=1)
    assert Reconstructor(tmp_path / "ours", mask).manifest.exact_on == "vnni"
    assert changed == [8]
    written = load_manifest(tmp_path / "ours")
    graph = openvino.Core().read_model(
        *(tmp_path / "ours" / file.name for file in (written.route(0).graph, written.weights))
    )
    write_plain(graph, tmp_path / "plain", VideoSignature(tile, 1.0, FRAMES, 1), 1)
    Reconstructor(tmp_path / "plain", mask)
    assert changed == [8]

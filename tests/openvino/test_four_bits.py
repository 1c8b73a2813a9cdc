"""Weights of four bits or fewer take half a byte in the file; the network computes the same, in the same arithmetic."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openvino
import pytest
from openvino import Type
from openvino import opset13 as ops
from openvino_networks import EVERYWHERE, calibrated_edsr, integer_layers
from test_export_video import TILE, efficientsci, measured, quantized
from torch import Tensor, nn

from qsci_plugins.evaluation.latency import open_graph
from qsci_plugins.openvino import ir
from qsci_plugins.openvino.convert import convert_like
from qsci_plugins.openvino.ir import pack, store_in_four_bits
from qsci_plugins.openvino.lowering import lower


def edsr() -> tuple[nn.Module, tuple[Tensor, ...]]:
    stock, network = calibrated_edsr(
        {"weight_bits": 4, "activation_bits": 4, "image_mapping": False}, EVERYWHERE, width=32
    )
    return lower(stock, network), (measured()[0][None].expand(1, 3, *TILE) * 255,)


def video() -> tuple[nn.Module, tuple[Tensor, ...]]:
    """Linear layers and three-dimensional convolutions."""
    network = quantized(stock := efficientsci(), {"name": "qsci", "weight_bits": 4, "activation_bits": 4})
    return lower(stock, network), measured()


@pytest.mark.parametrize("make", [edsr, video])
def test_the_same_values_in_integers_from_a_smaller_file(
    make: object, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lowered, inputs = make()  # type: ignore[operator]
    found = {}
    for fewest in (10**9, 256 if make is video else 1024):  # without, and with
        monkeypatch.setattr(ir, "_FEWEST_VALUES", fewest)
        graphs, constants = pack({"model": convert_like(lowered, inputs)})
        (tmp_path / "model.xml").write_bytes(graphs["model"])
        (tmp_path / "model.bin").write_bytes(constants)
        compiled = open_graph(tmp_path / "model.xml")
        # the number behind a name is OpenVINO's
        layers = {name.rstrip("0123456789"): integer for name, integer in integer_layers(compiled).items()}
        found[fewest] = len(constants), layers, compiled([each.numpy() for each in inputs])[0]
    (bytes_before, layers_before, before), (bytes_after, layers, after) = found.values()
    assert np.array_equal(before, after)
    assert np.ptp(after) > 0
    assert layers == layers_before
    assert any(layers.values())
    if make is edsr:
        assert all(layers.values())
        assert bytes_after < 0.6 * bytes_before
    else:
        assert bytes_after < 0.8 * bytes_before  # of small layers, whose biases and steps count


@pytest.mark.parametrize("count", [1024, 1025])
@pytest.mark.parametrize(("lowest", "highest", "changed"), [(-8, 7, 1), (-9, 7, 0), (-8, 8, 0)])
def test_values_survive_and_larger_ones_stay(count: int, lowest: int, highest: int, changed: int) -> None:
    values = np.random.default_rng(0).integers(lowest, highest + 1, count).astype(np.int8)
    values[:2] = lowest, highest
    parameter = ops.parameter([count], np.float32)
    model = openvino.Model([ops.add(parameter, ops.convert(ops.constant(values), Type.f32))], [parameter])
    assert store_in_four_bits(model) == changed
    result = openvino.compile_model(model, "CPU")(np.zeros(count, np.float32))[0]
    assert np.array_equal(result, values)


def test_few_values_stay_as_they_are() -> None:
    parameter = ops.parameter([8], np.float32)
    constant = ops.convert(ops.constant(np.zeros(8, np.int8)), Type.f32)
    assert store_in_four_bits(openvino.Model([ops.add(parameter, constant)], [parameter])) == 0

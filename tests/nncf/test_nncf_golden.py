"""AdaBM through NNCF's pipeline does what the published code does to the same network and images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from golden import golden_files, load

from qsci_plugins.architectures.sr.edsr import EDSR, EDSRStock
from qsci_plugins.nncf.backend import quantize
from qsci_plugins.schemes.bit_width import ImageToBit
from qsci_plugins.schemes.placement import Placement
from qsci_plugins.schemes.registry import make_scheme
from qsci_plugins.schemes.scheme import QuantizedNetwork


def _quantized(golden: dict[str, np.ndarray]) -> QuantizedNetwork:
    state = {name[3:]: torch.tensor(value) for name, value in golden.items() if name.startswith("fp/")}
    model = EDSR(**EDSRStock().read(state))
    model.load_state_dict(state)
    quantized = {name.split("/")[1] for name in golden if name.startswith("bac/") and name.endswith("/lower_a")}
    adaptive = {name for name in quantized if f"bac/{name}/measure_layer" in golden}
    settings = {
        "name": "adabm",
        "form": "faithful",
        "weight_bits": int(golden["weight_bits"]),
        "activation_bits": int(golden["base_activation_bits"]),
    }
    count = sum(name.startswith("calibration_batch_") for name in golden)
    batches = [torch.tensor(golden[f"calibration_batch_{index}"]).float() for index in range(count)]
    first = int(golden["bac_batch_index"])
    assert first == 0, "bit-aware clipping happens on the first batch"
    placement = Placement(tuple(sorted(adaptive)), tuple(sorted(quantized - adaptive)))
    return quantize(model, make_scheme(settings), placement, batches, 255.0)


@pytest.mark.parametrize("file", golden_files("adabm_edsr_*"))
def test_golden_edsr(file: Path) -> None:
    golden = load(file)
    network = _quantized(golden)
    assert isinstance(network.input_module, ImageToBit)
    assert network.input_module.lower.item() == pytest.approx(golden["bac/measure_l"].item(), rel=1e-5)
    assert network.input_module.upper.item() == pytest.approx(golden["bac/measure_u"].item(), rel=1e-5)
    for name, layer in network.layers.items():
        activation, weight = layer.activation, layer.weight
        assert activation is not None
        assert weight is not None
        span = float(golden[f"bac/{name}/upper_a"].item() - golden[f"bac/{name}/lower_a"].item())
        assert activation.lower.item() == pytest.approx(golden[f"bac/{name}/lower_a"].item(), abs=1e-4 * span), name
        assert activation.upper.item() == pytest.approx(golden[f"bac/{name}/upper_a"].item(), abs=1e-4 * span), name
        assert weight.upper.item() == pytest.approx(golden[f"bac/{name}/upper_w"].item(), rel=1e-5), name
        if layer.counted:
            assert activation.bit_width.measure.item() == golden[f"bac/{name}/measure_layer"].item(), name
    image = torch.tensor(golden[f"calibration_batch_{int(golden['eval_batch_index'])}"]).float()
    with torch.no_grad():
        output = network.model(image)
    expected = torch.tensor(golden["eval_output"])
    assert (output - expected).abs().mean() <= 1e-3 * (expected.max() - expected.min())
    fab = network.fab(image)
    assert torch.equal(fab * int(golden["n_counted_layers"]), torch.tensor(golden["eval_bits_sum"]).float())
    assert fab.mean().item() == pytest.approx(golden["fab"].item())

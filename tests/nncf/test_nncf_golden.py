"""AdaBM through NNCF's pipeline does what the published code does to the same network and images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from golden import golden_files, load
from torch import Tensor

from qsci_plugins.architectures.sr.edsr import EDSR, EDSRStock
from qsci_plugins.nncf.backend import apply, quantize
from qsci_plugins.schemes.activation import RangeActivation
from qsci_plugins.schemes.adabm import AdaBM, AdaBMConfig
from qsci_plugins.schemes.bit_selector import BitSelector
from qsci_plugins.schemes.bit_width import ImageToBit, MappedBitWidth, record_bits
from qsci_plugins.schemes.placement import Placement
from qsci_plugins.schemes.registry import make_scheme
from qsci_plugins.schemes.scheme import QuantizedNetwork
from qsci_plugins.schemes.weight import TensorWeight


class _BeforeClipping(AdaBM):
    """Stops where the published code's first step stops."""

    def complete(self, network: QuantizedNetwork, inputs: tuple[Tensor, ...]) -> None:
        pass


def _quantized(golden: dict[str, np.ndarray], kind: type[AdaBM] = AdaBM) -> QuantizedNetwork:
    state = {name[3:]: torch.tensor(value) for name, value in golden.items() if name.startswith("fp/")}
    model = EDSR(**EDSRStock().read(state))
    model.load_state_dict(state)
    quantized = {name.split("/")[1] for name in golden if name.startswith("bac/") and name.endswith("/lower_a")}
    adaptive = {name for name in quantized if f"bac/{name}/measure_layer" in golden}
    settings: dict[str, Any] = {
        "form": "faithful",
        "weight_bits": int(golden["weight_bits"]),
        "activation_bits": int(golden["base_activation_bits"]),
    }
    count = sum(name.startswith("calibration_batch_") for name in golden)
    batches = [torch.tensor(golden[f"calibration_batch_{index}"]).float() for index in range(count)]
    first = int(golden["bac_batch_index"])
    assert first == 0, "bit-aware clipping happens on the first batch"
    placement = Placement(tuple(sorted(adaptive)), tuple(sorted(quantized - adaptive)))
    return quantize(model, kind(AdaBMConfig(**settings)), placement, batches, 255.0)


def _check_ranges(network: QuantizedNetwork, golden: dict[str, np.ndarray], stage: str) -> None:
    for name, layer in network.layers.items():
        activation, weight = layer.activation, layer.weight
        assert isinstance(activation, RangeActivation)
        assert isinstance(weight, TensorWeight)
        lower, upper = (golden[f"{stage}/{name}/{bound}_a"].item() for bound in ("lower", "upper"))
        assert activation.lower.item() == pytest.approx(lower, abs=1e-4 * (upper - lower)), name
        assert activation.upper.item() == pytest.approx(upper, abs=1e-4 * (upper - lower)), name
        assert weight.upper.item() == pytest.approx(golden[f"{stage}/{name}/upper_w"].item(), rel=1e-5), name
        if layer.counted:
            assert isinstance(activation.bit_width, MappedBitWidth)
            assert activation.bit_width.measure.item() == golden[f"{stage}/{name}/measure_layer"].item(), name


@pytest.mark.parametrize("file", golden_files("adabm_edsr_*"))
def test_golden_edsr_before_clipping(file: Path) -> None:
    golden = load(file)
    _check_ranges(_quantized(golden, _BeforeClipping), golden, "calibrated")


@pytest.mark.parametrize("file", golden_files("adabm_edsr_*"))
def test_golden_edsr(file: Path) -> None:
    golden = load(file)
    network = _quantized(golden)
    assert isinstance(network.input_module, ImageToBit)
    assert network.input_module.lower.item() == pytest.approx(golden["bac/measure_l"].item(), rel=1e-5)
    assert network.input_module.upper.item() == pytest.approx(golden["bac/measure_u"].item(), rel=1e-5)
    _check_ranges(network, golden, "bac")
    image = torch.tensor(golden[f"calibration_batch_{int(golden['eval_batch_index'])}"]).float()
    with torch.no_grad():
        output = network.model(image)
    expected = torch.tensor(golden["eval_output"])
    assert (output - expected).abs().mean() <= 1e-3 * (expected.max() - expected.min())
    fab = network.fab(image)
    assert torch.equal(fab * int(golden["n_counted_layers"]), torch.tensor(golden["eval_bits_sum"]).float())
    assert fab.mean().item() == pytest.approx(golden["fab"].item())


@pytest.mark.parametrize("file", golden_files("cadyq_edsr*"))
def test_golden_cadyq_edsr(file: Path) -> None:
    golden = {name: torch.tensor(value) for name, value in load(file).items()}
    state = {name[3:]: value for name, value in golden.items() if name.startswith("fp/")}
    model = EDSR(**EDSRStock().read(state)).eval()
    model.load_state_dict(state)
    images = golden["images"].float()
    placement = Placement(("body.*.body.*",))
    network = apply(model, make_scheme({"name": "cadyq", "form": "faithful"}), placement, images[:1], 255.0)
    selectors: dict[str, Any] = {f"{name}.in_selector": selector for name, selector in network.blocks.items()}
    for name, layer in network.layers.items():
        if layer.activation is not None:
            block = name.removesuffix(".body.2")
            selectors[f"{block}.mid_selector"] = layer.activation
            with torch.no_grad():
                layer.output.alpha.copy_(golden[f"cadyq/{block}.residual_quantizer.alpha"])  # type: ignore[union-attr]
    assert len(selectors) == int(golden["n_selectors"])
    with torch.no_grad():
        for name, selector in selectors.items():
            assert isinstance(selector, BitSelector)
            alphas = [golden[f"cadyq/{name}.quant_bit{k}.alpha"] for k in range(1, len(selector.candidates) + 1)]
            selector.alpha.copy_(torch.cat(alphas))
            selector.weight.copy_(golden[f"cadyq/{name}.net_small.0.weight"])
            selector.bias.copy_(golden[f"cadyq/{name}.net_small.0.bias"])
        with record_bits() as ledger:
            output = network.model(images)
    assert torch.equal(ledger.total(network.counted()), golden["bits_sum"])
    expected = golden["output"]
    assert (output - expected).abs().mean() <= 1e-3 * (expected.max() - expected.min())

"""A backend: a stock network in, a quantized copy out, the same after a reload."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from nncf_networks import batches, small_edsr
from plain import calibrate
from torch import Tensor, nn

from qsci_plugins.errors import UserError
from qsci_plugins.nncf.backend import apply, default_int8, load, quantize, save
from qsci_plugins.nncf.hooks import network
from qsci_plugins.schemes.placement import Placement
from qsci_plugins.schemes.registry import make_scheme

PLACEMENT = Placement(("body.*",), ("head.*", "tail.*"))


@pytest.mark.parametrize("form", ["integer", "faithful"])
def test_pipeline_equals_plain_calibration(form: str) -> None:
    scheme = make_scheme({"name": "adabm", "form": form})
    plain = apply(small_edsr(), scheme, PLACEMENT, batches()[0], 255.0)
    assert not plain.calibrated()
    calibrate(plain, batches())
    piped = quantize(small_edsr(), scheme, PLACEMENT, batches(), 255.0)
    assert list(piped.layers) == list(plain.layers)
    assert piped.calibrated()
    expected = plain.model.state_dict()
    assert piped.model.state_dict().keys() == expected.keys()
    for name, value in piped.model.state_dict().items():
        assert torch.equal(value, expected[name]), name


def test_stock_model_and_copies_stay_as_they_are() -> None:
    stock = small_edsr().train()
    before = copy.deepcopy(stock.state_dict())
    quantized = quantize(stock, make_scheme({"name": "adabm"}), PLACEMENT, batches(), 255.0)
    assert quantized.model.training
    assert all(torch.equal(value, before[name]) for name, value in stock.state_dict().items())
    assert stock.state_dict().keys() == before.keys()
    with torch.no_grad():
        output = quantized.model(batches()[0])
        copied = network(copy.deepcopy(quantized.model))
        for parameter in copied.model.parameters():
            parameter.add_(1.0)
        assert torch.equal(quantized.model(batches()[0]), output)
        assert not torch.equal(copied.model(batches()[0]), output)


def test_quantization_changes_the_output_by_steps() -> None:
    """Each quantized layer sees no more levels than its bits have."""
    quantized = quantize(small_edsr(), make_scheme({"name": "adabm"}), PLACEMENT, batches(), 255.0)
    seen: list[torch.Tensor] = []
    quantizer = quantized.layers["body.0.body.0"].activation
    assert quantizer is not None
    quantizer.register_forward_hook(lambda module, args, output: seen.append(output))
    with torch.no_grad():
        quantized.model(batches()[0][:1])
    bits = round(quantized.fab(batches()[0][:1]).item())
    assert 2 < seen[0].unique().numel() <= 2 ** (bits + 1)


def test_trains_with_an_ordinary_loop() -> None:
    quantized = quantize(small_edsr(), make_scheme({"name": "adabm"}), PLACEMENT, batches(), 255.0)
    names = dict(quantized.model.named_parameters())
    for quantizer in quantized.quantizers():
        assert all(any(parameter is other for other in names.values()) for parameter in quantizer.parameters())
    optimizer = torch.optim.Adam(quantized.model.parameters(), lr=1e-2)
    target = torch.zeros(4, 3, 32, 32)
    losses = []
    for _ in range(3):
        optimizer.zero_grad()
        loss = (quantized.model(batches()[0]) - target).abs().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    layer = quantized.model.get_submodule("body.0.body.0")
    assert layer.weight.grad.abs().sum() > 0
    assert all(
        p.grad is not None and p.grad.isfinite().all() for p in quantized.layers["body.0.body.0"].weight.parameters()
    )


def test_reload_is_exact_in_a_new_process(tmp_path: Path) -> None:
    quantized = quantize(small_edsr(), make_scheme({"name": "adabm"}), PLACEMENT, batches(), 255.0)
    file = tmp_path / "network.pt"
    save(quantized, file)
    assert [entry.name for entry in tmp_path.iterdir()] == ["network.pt"]
    torch.save((batches()[1], quantized.model(batches()[1]).detach()), tmp_path / "expected.pt")
    program = (
        "import sys, torch\n"
        f"sys.path.insert(0, {str(Path(__file__).parents[1])!r})\n"
        "from nncf_networks import small_edsr\n"
        "from qsci_plugins.nncf.backend import load\n"
        "loaded = load(small_edsr(seed=1), sys.argv[1])\n"
        "image, expected = torch.load(sys.argv[2])\n"
        "assert torch.equal(loaded.model(image), expected)\n"
        "assert loaded.scheme.config.activation_bits == 4\n"
    )
    subprocess.run([sys.executable, "-c", program, file, tmp_path / "expected.pt"], check=True)
    again = load(small_edsr(seed=1), file)
    assert list(again.layers) == list(quantized.layers)
    assert [layer.counted for layer in again.layers.values()] == [layer.counted for layer in quantized.layers.values()]
    assert again.value_range == 255.0
    assert torch.equal(again.fab(batches()[2]), quantized.fab(batches()[2]))


def test_default_int8_is_a_copy() -> None:
    stock = small_edsr()
    baseline = default_int8(stock, batches())
    with torch.no_grad():
        difference = (baseline(batches()[0]) - stock(batches()[0])).abs().mean()
    assert 0 < difference < 50


def test_bad_use_is_a_user_error(tmp_path: Path) -> None:
    scheme = make_scheme({"name": "adabm"})
    applied = apply(small_edsr(), scheme, PLACEMENT, batches()[0], 255.0)
    with pytest.raises(UserError, match="quantized already"):
        quantize(applied.model, scheme, PLACEMENT, batches(), 255.0)
    with pytest.raises(UserError, match="not calibrated"):
        save(applied, tmp_path / "early.pt")
    with pytest.raises(UserError, match="nearest are body"):
        quantize(small_edsr(), scheme, Placement(("boddy.*",)), batches(), 255.0)
    with pytest.raises(UserError, match=r"0\.\.255"):
        quantize(small_edsr(), scheme, PLACEMENT, [batch / 255 for batch in batches()], 255.0)
    with pytest.raises(UserError, match="no images"):
        quantize(small_edsr(), scheme, PLACEMENT, [], 255.0)
    with pytest.raises(UserError, match="no quantizers"):
        network(small_edsr())
    (tmp_path / "text.pt").write_text("not a network")
    with pytest.raises(UserError, match="not a checkpoint, or a damaged one"):
        load(small_edsr(), tmp_path / "text.pt")
    torch.save({"weight": torch.ones(1)}, tmp_path / "other.pt")
    with pytest.raises(UserError, match="not written by"):
        load(small_edsr(), tmp_path / "other.pt")
    calibrate(applied, batches())
    with pytest.raises(UserError, match="cannot write"):
        save(applied, tmp_path / "nowhere" / "network.pt")
    save(applied, tmp_path / "network.pt")
    with pytest.raises(UserError, match="another network"):
        load(small_edsr(width=12), tmp_path / "network.pt")


def test_a_layer_that_the_network_never_calls_stays_float() -> None:
    class Idle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used = nn.Conv2d(3, 3, 3)
            self.idle = nn.Conv2d(3, 3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.used(x)

    assert list(apply(Idle(), make_scheme({"name": "adabm"}), Placement(), batches()[0], 255.0).layers) == ["used"]
    with pytest.raises(UserError, match="every layer is left in float"):
        apply(Idle(), make_scheme({"name": "adabm"}), Placement(("idle",)), batches()[0], 255.0)


def test_torch_that_breaks_nncf_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "__version__", "2.15.0+cpu")
    with pytest.raises(UserError, match=r"torch<2\.15"):
        apply(small_edsr(), make_scheme({"name": "adabm"}), PLACEMENT, batches()[0], 255.0)


def test_a_sequential_is_refused_with_the_way_out() -> None:
    layers = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, 3, 3, padding=1))
    with pytest.raises(UserError, match="put it into a module whose forward calls it"):
        quantize(layers, make_scheme({"name": "adabm"}), Placement(), batches(), 255.0)

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = layers

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.layers(x)
            return y

    quantized = quantize(Network(), make_scheme({"name": "adabm"}), Placement(), batches(), 255.0)
    assert set(quantized.layers) == {"layers.0", "layers.2"}

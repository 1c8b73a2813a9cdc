"""Which trial is taken, and which layers are raised."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from qsci_plugins.architectures.registry import load_network
from qsci_plugins.comparing import trials as module
from qsci_plugins.comparing.trials import Trial, Trials
from qsci_plugins.errors import UserError
from qsci_plugins.evaluation.bit_meter import costliest, layer_errors
from qsci_plugins.evaluation.estimates import estimate, expected_loss
from qsci_plugins.progress import Progress
from qsci_plugins.schemes.backend import load_backend
from qsci_plugins.schemes.placement import Placement
from qsci_plugins.schemes.quantizer import Mode
from qsci_plugins.schemes.registry import make_scheme, static_settings
from qsci_plugins.schemes.scheme import set_mode

LAYERS = ("a", "b", "c", "d")


class Pretended(Trials):
    """Losses and costs from a formula: every layer costs by its bits, and `b` most."""

    def __init__(self, losses: dict[int, float], unit: float = 0.01) -> None:
        super().__init__(None, None, {}, Path(), Progress(), None)  # type: ignore[arg-type]
        self.losses, self.unit = losses, unit

    def _run(self, bits: int, raised: tuple[str, ...], left: tuple[str, ...]) -> Trial:
        share = {"a": 0.1, "b": 0.7, "c": 0.1, "d": 0.1}
        widths = {name: 8 if name in raised else bits for name in LAYERS if name not in left}
        loss = sum(share[name] * self.losses[width] for name, width in widths.items())
        metrics = {
            "operations": None,
            "bits": {name: {"weight": float(width), "activation": float(width)} for name, width in widths.items()},
        }
        trial = Fixed(bits, raised, left, None, Path(), metrics, str(loss))  # type: ignore[arg-type]
        self.done.append(trial)
        return trial

    def _costly(self, trial: Trial, share: float) -> list[str]:
        gains = {"a": 0.1, "b": 0.7, "c": 0.1, "d": 0.1}
        return costliest({name: gain for name, gain in gains.items() if name in trial.metrics["bits"]}, 1.0, share)


class Fixed(Trial):
    @property
    def loss(self) -> float:
        assert self.truth is not None
        return float(self.truth)

    def described(self) -> str:
        return f"W{self.bits}A{self.bits}: it"


@pytest.mark.parametrize(
    ("losses", "limit", "bits", "raised", "left"),
    [
        ({8: 0.01, 6: 0.05, 4: 0.09}, 0.1, 4, (), ()),
        ({8: 0.01, 6: 0.05, 4: 3.0}, 0.1, 6, (), ()),
        ({8: 0.01, 6: 0.2, 4: 3.0}, 0.1, 6, ("b",), ()),
        ({8: 0.2, 6: 3.0, 4: 9.0}, 0.1, 8, (), ("b",)),
    ],
)
def test_the_fewest_bits_that_keep_the_loss(
    losses: dict[int, float], limit: float, bits: int, raised: tuple[str, ...], left: tuple[str, ...]
) -> None:
    trial = Pretended(losses).cheapest((8, 6, 4), limit)
    assert (trial.bits, trial.raised, trial.left) == (bits, raised, left)
    assert trial.loss <= limit


def test_without_a_limit_there_is_one_trial() -> None:
    trials = Pretended({8: 5.0, 6: 5.0, 4: 5.0})
    assert trials.cheapest((4,), None).bits == 4
    assert len(trials.done) == 1


def test_where_nothing_keeps_the_loss_the_least_is_told() -> None:
    with pytest.raises(UserError, match=r"^nothing tried loses at most 1e-09 dB; the least, 0\.\d+, is W8A8; what"):
        Pretended({8: 1.0, 6: 2.0, 4: 3.0}).cheapest((8, 6, 4), 1e-9)


def test_the_costliest_layers_go_until_the_share_is_left_and_no_more_than_half() -> None:
    gains = {"a": 1.0, "b": 4.0, "c": 2.0, "d": -1.0}
    assert costliest(gains, 8.0, 0.9) == ["b"]
    assert costliest(gains, 8.0, 0.3) == ["b", "c"]
    assert costliest(gains, 8.0, 0.0) == ["b", "c"]


def one_block(backend: str, targets: tuple[str, ...], eight_bit: tuple[str, ...] = ()):
    """A network, images, and the network with these layers at 4 bits, whose weights keep their values."""
    network = load_network("edsr", None, 2, blocks=1, width=4)
    images = torch.rand(2, 3, 16, 16) * 255
    settings = {**static_settings(8), "weight_bits": 4, "activation_bits": 4, "reconstruct_weights": False}
    scheme = make_scheme({**settings, "bias_correction": False})
    placement = Placement(targets, eight_bit)
    return network, images, load_backend(backend).quantize(network.module, scheme, placement, [images], 255.0)


@pytest.mark.parametrize("backend", ["nncf", "brevitas"])
def test_the_parts_of_the_layers_are_the_error_that_comes_with_their_rounding(backend: str) -> None:
    network, images, quantized = one_block(backend, ("body.0.body.0",), ("tail.*",))
    whole, parts = layer_errors(quantized, network.module, images)
    with torch.no_grad():
        expected = (quantized.model(images) - network.module(images)).double().square().mean().item()
    assert whole == pytest.approx(expected)
    assert parts.keys() == quantized.layers.keys()
    assert sum(parts.values()) == pytest.approx(whole)
    network_of_one, images_of_one, only = one_block(backend, ("body.0.body.0",))
    error, part = layer_errors(only, network_of_one.module, images_of_one)
    assert part == {"body.0.body.0": pytest.approx(error)}
    done: list[int] = []
    assert layer_errors(quantized, network.module, images, -1.0, done.append) == (whole, {})
    assert not done
    assert layer_errors(quantized, network.module, images, on_layer=done.append) == (whole, parts)
    assert len(done) == len(parts)


@pytest.mark.parametrize("backend", ["nncf", "brevitas"])
def test_layers_that_each_undo_the_whole_branch_are_both_costly(backend: str) -> None:
    """With one of them in float the other would still do, so that neither seemed to cost anything."""
    network, images, quantized = one_block(backend, ("body.0.*",))
    dead = ("body.0.body.0", "body.0.body.2")
    with torch.no_grad():
        for name in dead:
            activation = quantized.layers[name].activation
            assert activation is not None
            for bound in activation.parameters():
                bound.mul_(1e6)
        whole, parts = layer_errors(quantized, network.module, images)
        set_mode(quantized.layers[dead[0]], Mode.OFF)
        one_less = (quantized.model(images) - network.module(images)).double().square().mean().item()
    assert one_less == pytest.approx(whole, rel=0.05)
    assert parts == {name: pytest.approx(whole / 2, rel=0.05) for name in dead}


def test_losses_of_independent_errors_add_up() -> None:
    assert expected_loss(32.0) == pytest.approx(3.0103, abs=1e-4)
    assert expected_loss(52.0) == pytest.approx(0.0432, abs=1e-4)
    assert expected_loss(42.0, 22.0) == pytest.approx(0.0432, abs=1e-4)


def test_estimates_count_what_can_run_in_integers() -> None:
    network = load_network("edsr", None, 2, seed=1, blocks=1, width=4)
    before = {name: tensor.clone() for name, tensor in network.module.state_dict().items()}
    found = estimate(network, dot_products=True)
    layers = [name for name, layer in network.module.named_modules() if isinstance(layer, nn.Conv2d)]
    assert set(found["layers"]) == set(layers)
    assert sum(layer["macs"] for layer in found["layers"].values()) == pytest.approx(1.0)
    assert (found["not_called"], found["products"], found["macs_in_integers"]) == ([], [], 1.0)
    assert found["latency"] == pytest.approx(0.3)
    elements = sum(network.module.get_submodule(name).weight.numel() for name in layers)  # type: ignore[operator,union-attr]
    assert found["bytes"]["float32"] - found["bytes"]["int8"] == 3 * elements
    assert 30 < found["psnr"] < 80
    assert found["loss"] == pytest.approx(expected_loss(found["psnr"]))
    assert all(layer["weight_db"] > 25 and layer["input_db"] > 25 for layer in found["layers"].values())
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.module.state_dict().items())


def test_a_trial_is_found_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """By its recipe and what it was made of; with other inputs it is run anew."""
    from qsci_plugins.recipes.reading import make_recipe

    ran: list[Path] = []

    def run(recipe: Any, folder: Path, **_: Any) -> None:
        ran.append(folder)
        folder.mkdir()
        (folder / "metrics.json").write_text('{"version": 2, "sets": {"float_output": {"openvino": {"psnr": 42.0}}}}')

    monkeypatch.setattr(module, "run_recipe", run)
    recipe = make_recipe({"version": 1, "model": {"weights": "a.pth"}, "scheme": static_settings(8)})
    for inputs in ({"model.weights": "1"}, {"model.weights": "1"}, {"model.weights": "2"}):
        trials = Trials(recipe, None, inputs, tmp_path, Progress(), None)  # type: ignore[arg-type]
        assert trials.cheapest((8,), None).loss == pytest.approx(expected_loss(42.0))
    assert len(ran) == 2
    assert ran[0].name.startswith("w8a8-")

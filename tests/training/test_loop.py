from __future__ import annotations

import pickle
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qsci_plugins.data.patches import PatchPairs
from qsci_plugins.errors import UserError
from qsci_plugins.training import loop
from qsci_plugins.training.loop import _Readings, train_network, uses_bf16
from qsci_plugins.training.settings import LoopSettings

SETTINGS = LoopSettings(steps=8, learning_rate=1e-2, warmup=2, ema=0.5, checkpoint_every=3, device="cpu")


def _network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 12, 3, padding=1), nn.PixelShuffle(2))


def _loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    low, high = batch
    return F.l1_loss(model(low / 255), high / 255), {}


@pytest.fixture(scope="module")
def pairs() -> PatchPairs:
    generator = np.random.default_rng(0)
    return PatchPairs([generator.integers(0, 256, (40, 52, 3), dtype=np.uint8)], scale=2, patch=8)


def test_training_lowers_the_loss(pairs: PatchPairs) -> None:
    losses: list[float] = []
    settings = LoopSettings(steps=60, learning_rate=1e-2, warmup=5, device="cpu")
    train_network(_network(), _loss, lambda s, r, w: pairs.draw(0, 0, 4, r, w), settings, on_step=_keep(losses))
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])


def test_a_killed_run_ends_with_the_weights_of_one_that_was_not(pairs: PatchPairs, tmp_path: Path) -> None:
    def draw(step: int, rank: int, world: int) -> tuple[Tensor, Tensor]:
        return pairs.draw(3, step, 4, rank, world)

    whole = train_network(_network(), _loss, draw, SETTINGS).weights
    file = tmp_path / "checkpoint.pt"

    def interrupt(step: int, scalars: dict[str, float]) -> None:
        if step == 5:
            raise KeyboardInterrupt

    first = train_network(_network(), _loss, draw, SETTINGS, file, on_step=interrupt)
    assert (first.steps, first.finished) == (5, False)
    # the process that goes on starts from other random weights
    rest = train_network(_network(seed=9), _loss, draw, SETTINGS, file)
    assert (rest.steps, rest.finished) == (8, True)
    for name, tensor in whole.items():
        assert torch.equal(rest.weights[name], tensor), name


def test_a_hard_kill_goes_back_to_the_last_checkpoint(pairs: PatchPairs, tmp_path: Path) -> None:
    def draw(step: int, rank: int, world: int) -> tuple[Tensor, Tensor]:
        return pairs.draw(3, step, 4, rank, world)

    def die(step: int, scalars: dict[str, float]) -> None:
        if step == 5:
            raise MemoryError

    file = tmp_path / "checkpoint.pt"
    with pytest.raises(MemoryError):
        train_network(_network(), _loss, draw, SETTINGS, file, on_step=die)
    assert torch.load(file, weights_only=True)["step"] == 3
    resumed = train_network(_network(seed=9), _loss, draw, SETTINGS, file).weights
    whole = train_network(_network(), _loss, draw, SETTINGS).weights
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)


def test_a_network_trained_in_bf16_computes_in_float_afterwards(pairs: PatchPairs) -> None:
    settings = LoopSettings(steps=2, learning_rate=1e-2, precision="bf16", device="cpu")
    network, other = _network(), _network(1)
    result = train_network(network, _loss, lambda s, r, w: pairs.draw(0, s, 4, r, w), settings)
    for module in (network, other):
        module.load_state_dict(result.weights)
    x = torch.rand(1, 3, 9, 9, generator=torch.Generator().manual_seed(0))
    assert (network(x) - other(x)).abs().max() < 1e-6


def test_another_networks_checkpoint_is_refused(pairs: PatchPairs, tmp_path: Path) -> None:
    file = tmp_path / "checkpoint.pt"
    train_network(_network(), _loss, lambda s, r, w: pairs.draw(0, s, 4, r, w), SETTINGS, file)
    other = nn.Conv2d(3, 3, 1)
    with pytest.raises(UserError, match=r"checkpoint\.pt does not continue this run"):
        train_network(other, _loss, lambda s, r, w: pairs.draw(0, s, 4, r, w), SETTINGS, file)
    for content in (file.read_bytes()[:100], b"a text", pickle.dumps(Path("code"))):
        file.write_bytes(content)
        with pytest.raises(UserError, match="does not continue"):
            train_network(_network(), _loss, lambda s, r, w: pairs.draw(0, s, 4, r, w), SETTINGS, file)


def test_a_loss_that_is_not_finite_is_an_error(pairs: PatchPairs) -> None:
    with pytest.raises(UserError, match=r"at step 0; lower train\.learning_rate"):
        train_network(
            _network(),
            lambda model, batch: (model(batch[0]).mean() * float("nan"), {}),
            lambda s, r, w: pairs.draw(0, s, 4, r, w),
            SETTINGS,
        )


def test_the_rate_warms_up_and_falls() -> None:
    rates = [SETTINGS.rate_at(step) for step in range(9)]
    assert rates[0] == pytest.approx(5e-3)
    assert rates[2] == pytest.approx(1e-2)
    assert rates[8] == pytest.approx(1e-2 * SETTINGS.final_fraction)
    assert rates[2:] == sorted(rates[2:], reverse=True)


def test_processes_share_one_global_batch(pairs: PatchPairs) -> None:
    low, high = pairs.draw(5, 11, 6)
    parts = [pairs.draw(5, 11, 6, rank, 2) for rank in range(2)]
    assert torch.equal(torch.cat([parts[0][0], parts[1][0]]), torch.cat([low[::2], low[1::2]]))
    assert torch.equal(torch.cat([parts[0][1], parts[1][1]]), torch.cat([high[::2], high[1::2]]))


def _keep(losses: list[float]):  # type: ignore[no-untyped-def]
    return lambda step, scalars: losses.append(scalars["loss"])


def test_a_rate_that_halves() -> None:
    settings = LoopSettings(steps=9, learning_rate=0.8, warmup=0, halve_every=3)
    assert [settings.rate_at(step) for step in (0, 2, 3, 8)] == [0.8, 0.8, 0.4, 0.2]


@pytest.mark.parametrize("keep", [True, False])
def test_normalisation_keeps_its_statistics_where_asked(pairs: PatchPairs, keep: bool) -> None:
    network = nn.Sequential(nn.BatchNorm2d(3), _network())
    settings = LoopSettings(steps=2, warmup=0, device="cpu", keep_statistics=keep)
    result = train_network(network, _loss, lambda s, r, w: pairs.draw(0, s, 4, r, w), settings)
    assert (result.weights["0.running_mean"].abs().max() == 0) == keep


def test_a_step_may_be_left_out_or_move_some_parameters_alone(pairs: PatchPairs) -> None:
    network = _network()
    start = {name: p.detach().clone() for name, p in network.named_parameters()}
    seen: list[int] = []

    def choose(step: int) -> bool:
        network[2].requires_grad_(False)
        return step in (1, 3)

    settings = LoopSettings(steps=5, learning_rate=1e-2, warmup=0, ema=0.0, device="cpu")
    result = train_network(
        network,
        _loss,
        lambda s, r, w: pairs.draw(0, s, 4, r, w),
        settings,
        choose=choose,
        on_step=lambda step, scalars: seen.append(step),
    )
    assert (result.steps, result.finished, seen) == (5, True, [2, 4])
    for name, before in start.items():
        assert torch.equal(result.weights[name], before) == name.startswith("2."), name


def test_a_checkpoint_made_with_something_else_is_refused(pairs: PatchPairs, tmp_path: Path) -> None:
    file = tmp_path / "checkpoint.pt"

    def run(seed: int) -> int:
        draw = lambda s, r, w: pairs.draw(seed, s, 4, r, w)  # noqa: E731
        return train_network(_network(), _loss, draw, SETTINGS, file, checkpoint_settings={"seed": seed}).steps

    assert run(3) == run(3) == 8
    with pytest.raises(
        UserError, match=r"checkpoint\.pt does not continue this run \(it was made with other settings\)"
    ):
        run(4)


def test_without_an_average_none_is_kept(pairs: PatchPairs, tmp_path: Path) -> None:
    file = tmp_path / "checkpoint.pt"
    settings = LoopSettings(steps=2, ema=0.0, device="cpu")
    network = _network()
    result = train_network(network, _loss, lambda s, r, w: pairs.draw(0, s, 4, r, w), settings, file)
    assert torch.load(file, weights_only=True)["average"] == {}
    assert all(torch.equal(result.weights[name], tensor) for name, tensor in network.state_dict().items())


def test_scalars_that_are_read_together_reach_the_steps_they_belong_to() -> None:
    got: list[tuple[int, dict[str, float]]] = []
    readings = _Readings(lambda step, scalars: got.append((step, scalars)), "train.learning_rate")
    for step in range(3):
        row = readings.row(torch.tensor(0.5 + step, requires_grad=True), {"psnr": torch.tensor(30.0 + step)})
        readings.add(step + 1, 0.1 * step, row)
    assert got == []
    readings.read()
    assert got == [(n + 1, {"loss": 0.5 + n, "rate": 0.1 * n, "psnr": 30.0 + n}) for n in range(3)]
    readings.add(4, 0.1, readings.row(torch.tensor(1.0), {}))
    readings.add(5, 0.1, readings.row(torch.tensor(float("nan")), {}))
    with pytest.raises(UserError, match=r"the loss became nan at step 4; lower train\.learning_rate"):
        readings.read()
    assert got[-1][0] == 4


def test_auto_asks_the_device_for_its_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "cpu_flags", lambda: frozenset({"avx2"}))
    assert not uses_bf16("auto", torch.device("cpu"))
    assert uses_bf16("bf16", torch.device("cpu"))
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    for native in (True, False):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, native=native: native)
        assert uses_bf16("auto", torch.device("cuda", 0)) == native
    assert not uses_bf16("float32", torch.device("cuda", 0))


@pytest.mark.parametrize(("precision", "native"), [("auto", True), ("auto", False), ("bf16", False), ("bf16", True)])
def test_a_cpu_trains_in_bf16_where_it_computes_in_it_and_says_where_not(
    pairs: PatchPairs, monkeypatch: pytest.MonkeyPatch, precision: Literal["auto", "bf16"], native: bool
) -> None:
    monkeypatch.setattr(loop, "uses_bf16", lambda wanted, device: native if wanted == "auto" else wanted == "bf16")
    seen, notes = [], []

    def loss(network: nn.Module, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        seen.append(torch.is_autocast_enabled("cpu"))
        return _loss(network, batch)

    settings = LoopSettings(steps=1, precision=precision, device="cpu")
    train_network(_network(), loss, lambda s, r, w: pairs.draw(0, s, 4, r, w), settings, note=notes.append)
    assert seen == [precision == "bf16" or native]
    emulated = "cpu emulates bf16, and takes many times as long as with train.precision: auto"
    assert notes == ([emulated] if precision == "bf16" and not native else [])


def test_compile_changes_nothing_on_a_cpu(pairs: PatchPairs) -> None:
    notes: list[str] = []
    weights = [
        train_network(
            _network(),
            _loss,
            lambda s, r, w: pairs.draw(0, s, 4, r, w),
            replace(SETTINGS, compile=wanted),
            note=notes.append,
        ).weights
        for wanted in (False, True)
    ]
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())
    assert notes == []

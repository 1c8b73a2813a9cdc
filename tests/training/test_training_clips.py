from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median

import pytest
import torch
from torch import nn

from qsci_plugins.architectures.registry import load_network
from qsci_plugins.data.clips import SnapshotClips
from qsci_plugins.data.scenes import synthetic_scene
from qsci_plugins.data.snapshots import random_mask
from qsci_plugins.training.loop import Interruption
from qsci_plugins.training.recomputation import recompute_in_backward
from qsci_plugins.training.settings import TrainingPhase, VideoTraining
from qsci_plugins.training.snapshots import train_on_snapshots

PHASES = [
    TrainingPhase(crop=8, steps=3, rate=1e-2, final_rate=1e-2),
    TrainingPhase(crop=16, steps=4, rate=1e-3, final_rate=1e-4),
]
SETTINGS = VideoTraining(phases=PHASES, batch=2, warmup=2, ema=0.5, checkpoint_every=2, cpu=True)


@pytest.fixture(scope="module")
def clips() -> list[SnapshotClips]:
    scene = synthetic_scene(4, 24, 24)
    return [SnapshotClips([scene], random_mask(3, 16, 16), phase.crop, resize=False) for phase in PHASES]


def network(seed: int = 0) -> nn.Module:
    return load_network("efficientsci", None, seed=seed, in_ch=2, units=1, group_num=1).module


def test_rates_warm_up_stay_and_fall() -> None:
    rates = [SETTINGS.rate_at(step) for step in range(SETTINGS.steps)]
    assert rates[:4] == pytest.approx([5e-3, 1e-2, 1e-2, 1e-3])
    assert rates[3:] == sorted(rates[3:], reverse=True)
    assert 1e-4 < rates[-1] < 4e-4
    assert [SETTINGS.phase_of(step) for step in range(8)] == [0, 0, 0, 1, 1, 1, 1, 1]


def test_every_phase_has_its_crop(clips: list[SnapshotClips]) -> None:
    model = network()
    seen: list[int] = []
    model.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape[-1]))
    train_on_snapshots(model, clips, SETTINGS)
    assert seen == [8, 8, 8, 16, 16, 16, 16]


@pytest.mark.parametrize("loss", ["mse", "rmse"])
def test_training_lowers_the_loss(loss: str, clips: list[SnapshotClips]) -> None:
    errors: list[float] = []
    settings = VideoTraining(phases=[TrainingPhase(crop=8, steps=40, rate=2e-3)], batch=2, loss=loss, cpu=True)  # type: ignore[arg-type]
    train_on_snapshots(network(), clips, settings, on_step=lambda step, scalars: errors.append(scalars["rmse"]))
    assert median(errors[-9:]) < 0.7 * median(errors[:5])


def test_the_roots_gradient_is_that_of_the_root(clips: list[SnapshotClips]) -> None:
    settings = VideoTraining(
        phases=[TrainingPhase(crop=8, steps=1, rate=1e-2)], batch=2, loss="rmse", clip=0.0, cpu=True
    )
    trained, expected = network(), network()
    train_on_snapshots(trained, clips, settings)
    measurement, mask, total, frames = clips[0].draw(0, 0, 2)
    (expected(measurement, mask, total) - frames).square().mean().sqrt().backward()
    for (name, after), (_, start) in zip(trained.named_parameters(), expected.named_parameters(), strict=True):
        assert start.grad is not None
        # Adam's first step is the rate times the gradient's sign, where it is not negligible
        moved, gradient = after - start, start.grad
        clear = gradient.abs() > 1e-5
        assert torch.allclose(moved[clear], -1e-2 * gradient[clear].sign(), atol=2e-4), name


def test_a_killed_run_ends_with_the_weights_of_one_that_was_not(clips: list[SnapshotClips], tmp_path: Path) -> None:
    whole = train_on_snapshots(network(), clips, SETTINGS).weights

    def die(step: int, scalars: dict[str, float]) -> None:
        if step == 5:
            raise MemoryError

    file = tmp_path / "training.state"
    with pytest.raises(MemoryError):
        train_on_snapshots(network(), clips, SETTINGS, file, on_step=die)
    assert torch.load(file, weights_only=True)["step"] == 4
    rest = train_on_snapshots(network(seed=9), clips, SETTINGS, file)
    assert all(torch.equal(rest.weights[name], whole[name]) for name in whole)


def test_signals_in_a_process_of_their_own() -> None:
    """In this one, libraries that other tests have loaded change how signals arrive."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", "0", "-m", "alone", __file__],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.alone
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_after_a_whole_step(number: signal.Signals, clips: list[SnapshotClips], tmp_path: Path) -> None:
    """It may come anywhere: here in the middle of the fourth forward pass."""
    whole = train_on_snapshots(network(), clips, SETTINGS).weights
    model, file = network(), tmp_path / "training.state"
    calls: list[int] = []

    def strike(module: nn.Module, inputs: object) -> None:
        calls.append(1)
        if len(calls) == 4:
            os.kill(os.getpid(), number)

    model.register_forward_pre_hook(strike)
    before = signal.getsignal(number)
    stopped = train_on_snapshots(model, clips, SETTINGS, file)
    assert (stopped.steps, stopped.finished) == (4, False)
    assert signal.getsignal(number) is before
    rest = train_on_snapshots(network(seed=9), clips, SETTINGS, file)
    assert all(torch.equal(rest.weights[name], whole[name]) for name in whole)


@pytest.mark.alone
def test_a_second_signal_does_not_wait() -> None:
    with Interruption() as interruption:
        os.kill(os.getpid(), signal.SIGINT)
        assert interruption.requested
        with pytest.raises(SystemExit):
            os.kill(os.getpid(), signal.SIGINT)


def test_recomputation_changes_memory_and_nothing_else(clips: list[SnapshotClips]) -> None:
    inputs = clips[1].draw(0, 0, 1)[:3]
    model = network()
    plain = _gradients(model, lambda: model(*inputs))
    saved: list[int] = []
    with recompute_in_backward(model, ["resdnet_list.0"]):
        with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.numel()) or t, lambda t: t):
            output = model(*inputs)
        less = sum(saved)
        output.mean().backward()
        model.zero_grad()
        again = _gradients(model, lambda: model(*inputs))
    saved.clear()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.numel()) or t, lambda t: t):
        model(*inputs)
    assert less < 0.7 * sum(saved)
    assert all(torch.equal(plain[name], again[name]) for name in plain)
    assert "forward" not in vars(model.get_submodule("resdnet_list.0"))


def _gradients(model: nn.Module, run: Callable[[], torch.Tensor]) -> dict[str, torch.Tensor]:
    model.zero_grad()
    run().square().mean().backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}

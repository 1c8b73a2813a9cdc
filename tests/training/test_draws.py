"""Batches that other processes draw ahead: the same weights, no traces of the processes, and clear errors."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qsci_plugins.data.patches import PatchPairs
from qsci_plugins.errors import UserError
from qsci_plugins.training import draws
from qsci_plugins.training.draws import DrawnAhead, suitable_workers
from qsci_plugins.training.loop import train_network
from qsci_plugins.training.settings import LoopSettings

#: forks, and torch's handler of ended processes, are kept from other tests: test_draws_apart.py starts these
pytestmark = pytest.mark.alone

SETTINGS = LoopSettings(steps=8, learning_rate=1e-2, warmup=2, ema=0.5, checkpoint_every=3, device="cpu", workers=0)
WITH_WORKERS = replace(SETTINGS, workers=2)


def _network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    # dropout takes the process' own random numbers, which drawing must not touch
    return nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.Dropout(0.3), nn.Conv2d(6, 12, 1), nn.PixelShuffle(2))


def _loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    low, high = batch
    return F.l1_loss(model(low / 255), high / 255), {}


def _draw(step: int, rank: int, world: int) -> tuple[Tensor, Tensor]:
    image = np.random.default_rng(0).integers(0, 256, (40, 52, 3), dtype=np.uint8)
    return PatchPairs([image], scale=2, patch=8).draw(3, step, 4, rank, world)


def test_processes_that_draw_change_no_weight() -> None:
    alone = train_network(_network(), _loss, _draw, SETTINGS).weights
    ahead = train_network(_network(), _loss, _draw, WITH_WORKERS).weights
    assert all(torch.equal(alone[name], ahead[name]) for name in alone)
    assert not multiprocessing.active_children()


def test_a_run_stopped_while_others_draw_for_it_ends_with_the_same_weights(tmp_path: Path) -> None:
    def interrupt(step: int, scalars: dict[str, float]) -> None:
        if step == 5:
            raise KeyboardInterrupt

    file = tmp_path / "training.state"
    first = train_network(_network(), _loss, _draw, WITH_WORKERS, file, on_step=interrupt)
    assert (first.steps, first.finished) == (5, False)
    rest = train_network(_network(9), _loss, _draw, WITH_WORKERS, file)
    whole = train_network(_network(), _loss, _draw, SETTINGS).weights
    assert rest.steps == 8
    assert all(torch.equal(rest.weights[name], whole[name]) for name in whole)


def test_every_step_gets_its_own_batch_though_steps_are_left_out() -> None:
    ahead = DrawnAhead(lambda step: torch.tensor([step]), 3, 12, 2)
    try:
        assert [int(ahead.take(step)) for step in (4, 5, 8, 11)] == [4, 5, 8, 11]
    finally:
        ahead.close()
    in_this_process = DrawnAhead(lambda step: torch.tensor([step, os.getpid()]), 0, 3, 0)
    assert in_this_process.take(1).tolist() == [1, os.getpid()]


def test_a_killed_process_is_one_error() -> None:
    def kill(step: int, scalars: dict[str, float]) -> None:
        if step == 2:
            os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)  # type: ignore[arg-type]
            time.sleep(0.3)

    with pytest.raises(UserError, match=r"a process that draws examples was killed.*set train\.workers to 0"):
        train_network(_network(), _loss, _draw, replace(WITH_WORKERS, steps=200), on_step=kill)
    assert not multiprocessing.active_children()


def test_an_error_of_a_draw_stays_what_it_is() -> None:
    def draw(step: int, rank: int, world: int) -> tuple[Tensor, Tensor]:
        if step == 4:
            raise ValueError("no such clip")
        return _draw(step, rank, world)

    with pytest.raises(ValueError, match="no such clip"):
        train_network(_network(), _loss, draw, WITH_WORKERS)


def test_how_many_processes_suit_a_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)), raising=False)
    assert [suitable_workers(None, steps, gpu) for steps, gpu in ((1000, False), (1000, True), (8, True))] == [0, 8, 0]
    assert suitable_workers(3, 8, False) == 3
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0}, raising=False)
    assert suitable_workers(None, 1000, False) == 0
    monkeypatch.setattr(multiprocessing, "get_all_start_methods", lambda: ["spawn"])
    assert suitable_workers(3, 1000, True) == 0


def test_without_shared_memory_this_process_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draws, "_room", lambda size: 0)
    ahead = DrawnAhead(lambda step: torch.tensor([step, os.getpid()]), 0, 40, 2)
    assert [ahead.take(step).tolist() for step in (0, 7)] == [[0, os.getpid()], [7, os.getpid()]]
    assert not multiprocessing.active_children()


_STOPPED = """
import sys, time
sys.path.insert(0, {folder!r})
from pathlib import Path
import test_draws as t

def on_step(step, scalars):
    print("step", step, flush=True)
    time.sleep(0.05)

result = t.train_network(
    t._network(), t._loss, t._draw, t.replace(t.WITH_WORKERS, steps=2000), Path({file!r}), on_step=on_step
)
print("ended", result.finished, flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_stops_all_processes_at_once_leaves_no_traceback(number: signal.Signals, tmp_path: Path) -> None:
    file = tmp_path / "training.state"
    script = _STOPPED.format(folder=str(Path(__file__).parent), file=str(file))
    running = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert running.stdout is not None
    while "step 3" not in running.stdout.readline():
        assert running.poll() is None
    os.killpg(running.pid, number)
    output, errors = running.communicate(timeout=60)
    assert output.splitlines()[-1] == "ended False"
    assert "Traceback" not in errors
    assert 3 <= torch.load(file, weights_only=True)["step"] < 2000

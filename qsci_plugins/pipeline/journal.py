"""What a run writes down while it works: the seconds of its steps, the course of its training, TensorBoard's curves."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from qsci_plugins.files import write_text
from qsci_plugins.pipeline.output import BOARD, JOURNAL, is_main
from qsci_plugins.progress import Progress

__all__ = ["Journal", "seen", "stopped", "training_log", "watched"]

#: means over the steps between two checkpoints; kept with the states of a run that is interrupted
_LOG = "training_log.state"

#: takes a step's number and scalars
OnStep = Callable[[int, dict[str, float]], None]


class Journal:
    """Seconds of every step, kept in the work folder so that an interrupted run adds to them."""

    def __init__(self, work: Path) -> None:
        self._file = work / JOURNAL
        self.seconds: dict[str, float] = json.loads(self._file.read_text()) if self._file.is_file() else {}

    @contextmanager
    def timed(self, step: str) -> Iterator[None]:
        """Adds the block's seconds, also where Ctrl-C ends it."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[step] = self.seconds.get(step, 0.0) + time.perf_counter() - started
            if is_main():
                write_text(self._file, json.dumps(self.seconds))


class Observed(Protocol):
    """The settings of a training that say how it is observed."""

    @property
    def checkpoint_every(self) -> int: ...
    @property
    def tensorboard(self) -> bool: ...
    @property
    def picture_every(self) -> int: ...


@contextmanager
def watched(
    title: str,
    steps: int,
    settings: Observed,
    work: Path,
    progress: Progress,
    text: Callable[[dict[str, float]], str],
    picture: Callable[[], Tensor],
) -> Iterator[OnStep]:
    """What takes the steps of a training: a stage of the progress, which shows `text`, the log, and TensorBoard.

    `picture` shows the network as it is, (1 or 3,h,w) in 0..1. The last stretch of the log ends with the block, unless an
    exception does.
    """
    log = _Log(work / _LOG, settings.checkpoint_every) if is_main() else None
    board: Any = None
    with progress.stage(title, steps) as advance:

        def on_step(step: int, scalars: dict[str, float]) -> None:
            nonlocal board
            if log is not None:
                log.add(step, scalars)
            if settings.tensorboard and is_main():
                if board is None:
                    from qsci_plugins.training.board import Board

                    board = Board(work / BOARD, step)
                board.scalars(step, scalars)
                if step % settings.picture_every == 0:
                    board.picture(step, picture())
            advance(step, text(scalars))

        try:
            yield on_step
        finally:
            if board is not None:
                board.close()
    if log is not None:
        log.close()


def stopped(step: int, title: str) -> KeyboardInterrupt:
    """What ends a run whose training somebody stopped after this step."""
    return KeyboardInterrupt(f"stopped after step {step} of {title}; the same command goes on from there")


def training_log(work: Path) -> list[dict[str, float]]:
    """A training's step and mean scalars, such as loss, psnr and fab, over stretches of steps; empty without one."""
    file = work / _LOG
    rows: list[dict[str, float]] = json.loads(file.read_text()) if file.is_file() else []
    return rows


class _Log:
    """Means over every stretch of steps, on file; what an interrupted stretch had seen is lost."""

    def __init__(self, file: Path, every: int) -> None:
        self._file = file
        self._every = every
        self._rows = training_log(file.parent)
        self._now: list[dict[str, float]] = []
        self._step = 0

    def add(self, step: int, scalars: dict[str, float]) -> None:
        self._now.append(scalars)
        self._step = step
        if step % self._every == 0:
            self.close()

    def close(self) -> None:
        """Ends the stretch at the last step, and writes."""
        if not self._now:
            return
        keys = [key for key in self._now[0] if key != "rate"]
        means = {key: round(fmean(scalars[key] for scalars in self._now), 4) for key in keys}
        self._rows = [row for row in self._rows if row["step"] < self._step] + [{"step": self._step, **means}]
        self._now = []
        write_text(self._file, json.dumps(self._rows))


@torch.no_grad()
def seen(module: nn.Module, *inputs: Tensor) -> Tensor:
    """What a network in training makes of inputs now, on the CPU."""
    device = next(module.parameters()).device
    training = module.training
    module.eval()
    try:
        output: Tensor = module(*(given.to(device) for given in inputs))
    finally:
        module.train(training)
    return output.float().cpu()

"""The step of a run that trains CADyQ's selectors on labelled patches."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean
from typing import Any

from qsci_plugins.architectures.network import Network
from qsci_plugins.data.folders import find_images
from qsci_plugins.data.patches import PatchPairs
from qsci_plugins.errors import UserError
from qsci_plugins.files import write_text
from qsci_plugins.progress import Progress
from qsci_plugins.recipes.reading import expand
from qsci_plugins.schemes.scheme import QuantizedNetwork, Scheme
from qsci_plugins.training.settings import CADyQTraining

__all__ = ["check_training", "train_selectors", "training_log"]

#: means over the steps between two checkpoints; kept with the states of a run that is interrupted
_LOG = "training_log.state"
_LOGGED = ("loss", "l1", "psnr", "fab")


def check_training(train: CADyQTraining, network: Network, scheme: Scheme) -> None:
    """Raises UserError for another scheme, a folder without images, and patches that the network does not take."""
    if scheme.config.name != "cadyq":
        raise UserError(
            f"train.schedule: cadyq trains CADyQ's bit selectors; the scheme {scheme.config.name!r} has none;"
            " take schedule joint or published"
        )
    if train.patch % network.size_multiple:
        raise UserError(
            f"train.patch is {train.patch}; {network.architecture} needs a multiple of {network.size_multiple}"
        )
    for index, (folder, _) in enumerate(_folders(train)):
        try:
            find_images(folder)
        except UserError as error:
            raise UserError(f"train.data.{index}.path: {error}") from None


def train_selectors(
    train: CADyQTraining, network: Network, quantized: QuantizedNetwork, work: Path, progress: Progress
) -> None:
    """Trains the network in place. Ctrl-C keeps the state in `work` and raises KeyboardInterrupt."""
    from qsci_plugins.training.attention_transfer import feature_sites
    from qsci_plugins.training.cadyq import train_cadyq

    with progress.stage("reading photos", 1) as advance:
        pairs = PatchPairs.from_folders(
            _folders(train), network.scale, train.patch, on_file=lambda done, total: advance(done, total=total)
        )
    example = pairs.draw(train.seed, 0, 1)[0] * (network.value_range / 255)
    sites = feature_sites(network.module, network.blocks, list(quantized.layers), example)
    log = _Log(work / _LOG, train.checkpoint_every)
    with progress.stage("training", train.warm_up + train.steps) as advance:

        def on_step(step: int, scalars: dict[str, float]) -> None:
            log.add(step, scalars)
            advance(step, f"L1 {scalars['l1']:.3f}, {scalars['psnr']:.2f} dB, FAB {scalars['fab']:.2f}")

        result = train_cadyq(quantized, pairs, train, sites, work, on_step=on_step)
    if not result.finished:
        raise KeyboardInterrupt(f"stopped after step {result.steps} of training; the same command goes on")
    log.close(result.steps)


def training_log(work: Path) -> list[dict[str, float]]:
    """Step, loss, L1, PSNR (RGB) and FAB in the training of a run, means over stretches of steps."""
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

    def add(self, step: int, scalars: dict[str, float]) -> None:
        self._now.append(scalars)
        if step % self._every == 0:
            self.close(step)

    def close(self, step: int) -> None:
        """Ends the stretch at this step, and writes."""
        if not self._now:
            return
        means: dict[str, Any] = {key: round(fmean(one[key] for one in self._now), 4) for key in _LOGGED}
        self._rows = [row for row in self._rows if row["step"] < step] + [{"step": step, **means}]
        self._now = []
        write_text(self._file, json.dumps(self._rows))


def _folders(train: CADyQTraining) -> list[tuple[Path, int]]:
    return [(expand(one.path, f"train.data.{index}.path"), one.stride) for index, one in enumerate(train.data)]

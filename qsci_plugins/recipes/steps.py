"""The steps of a quantization run, each of which an interrupted run does not repeat."""

from __future__ import annotations

import importlib
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from qsci_plugins.architectures.network import Network
from qsci_plugins.progress import Progress
from qsci_plugins.recipes.baselines import quiet
from qsci_plugins.recipes.cadyq_training import train_selectors
from qsci_plugins.recipes.outputs import CHECKPOINT, JOURNAL, write_text
from qsci_plugins.recipes.prepare import Prepared
from qsci_plugins.recipes.training_schema import CADyQTraining
from qsci_plugins.schemes.placement import Placement
from qsci_plugins.schemes.scheme import QuantizedNetwork, Scheme

__all__ = ["MODEL", "Journal", "Quantizable", "backend", "calibrated", "fine_tuned"]

#: the folder to deploy
MODEL = "model"


class Journal:
    """Seconds of every step, kept in the work folder so that an interrupted run adds to them."""

    def __init__(self, work: Path, writes: bool = True) -> None:
        self._writes = writes
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
            if self._writes:
                write_text(self._file, json.dumps(self.seconds))


def backend(name: str) -> Any:
    """The door of a backend: `apply`, `quantize`, `save` and `load`."""
    with quiet():
        return importlib.import_module(f"qsci_plugins.{name}.backend")


class Quantizable(Protocol):
    """What calibration needs of a prepared recipe, for images or for video."""

    @property
    def recipe(self) -> Any: ...
    @property
    def network(self) -> Network: ...
    @property
    def scheme(self) -> Scheme: ...
    @property
    def placement(self) -> Placement: ...
    @property
    def batches(self) -> Any: ...


def calibrated(
    prepared: Quantizable, work: Path, journal: Journal, progress: Progress, *, keep: bool = True
) -> QuantizedNetwork:
    """The network with fitted quantizers, or as it was saved by the interrupted run; saved in turn, unless not to `keep`."""
    door = backend(prepared.recipe.backend)
    network = prepared.network
    for file in (work / CHECKPOINT, work / "calibrated.state"):
        if file.is_file():
            progress.note("calibration: done before the interruption")
            quantized: QuantizedNetwork = door.load(network.module, file)
            return quantized
    with progress.stage("calibration", 1) as advance, journal.timed("calibration"):
        with quiet():
            quantized = door.quantize(
                network.module, prepared.scheme, prepared.placement, prepared.batches, network.value_range
            )
        advance(1)
    if keep:
        door.save(quantized, work / "calibrated.state")
    return quantized


def fine_tuned(
    prepared: Prepared, quantized: QuantizedNetwork, work: Path, journal: Journal, progress: Progress
) -> QuantizedNetwork:
    """The network after the recipe's fine-tuning (the same one where there is none), saved as the run's checkpoint.

    Ctrl-C keeps the state in the work folder and raises KeyboardInterrupt.
    """
    if (work / CHECKPOINT).is_file():
        progress.note("fine-tuning: done before the interruption")
        return quantized
    recipe = prepared.recipe
    if isinstance(recipe.train, CADyQTraining):
        with journal.timed("training"):
            train_selectors(recipe.train, prepared.network, quantized, work, progress)
    elif recipe.train is not None:
        from qsci_plugins.training.finetune import FinetuneSettings, finetune

        settings = FinetuneSettings(**recipe.train.model_dump())
        with progress.stage("fine-tuning", settings.steps) as advance, journal.timed("fine_tuning"):
            result = finetune(
                quantized,
                prepared.network.module,
                prepared.patches,
                settings,
                work / "finetune.state",
                blocks=prepared.network.blocks,
                on_step=lambda step, scalars: advance(step, f"loss {scalars['loss']:.4f}"),
            )
        if not result.finished:
            raise KeyboardInterrupt(f"stopped after step {result.steps} of fine-tuning; the same command goes on")
    backend(recipe.backend).save(quantized, work / CHECKPOINT)
    return quantized

"""What a run writes down: the seconds of its steps, the curves of its training, and metrics.json."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from qsci_plugins.errors import UserError
from qsci_plugins.files import write_text
from qsci_plugins.machine import describe_device, describe_machine
from qsci_plugins.pipeline.output import BOARD, JOURNAL, METRICS_FILE, is_main
from qsci_plugins.pipeline.task import Loaded, Prepared, Trainable
from qsci_plugins.progress import Progress

__all__ = [
    "Journal",
    "quantization_metrics",
    "read_metrics",
    "seen",
    "stopped",
    "training_log",
    "training_metrics",
    "watched",
    "write_metrics",
]

_VERSION = 2


def quantization_metrics(
    prepared: Prepared,
    work: Path,
    journal: Journal,
    *,
    sets: Mapping[str, Any],
    operations: Mapping[str, Any] | None,
    latency: Mapping[str, Any] | None,
    bits: Mapping[str, tuple[float, float]],
    float_layers: Mapping[str, str],
    layer_errors: Mapping[str, Any],
) -> dict[str, Any]:
    """The content of metrics.json, version 2, of a quantization run; its keys are these, and no key is ever absent.

    task: "sr" or "sci"; kind: "quantize" or "train"; network: architecture, weights, settings, scale, shortcuts; sets: by
    set and form psnr, ssim, fab and pieces, as in `measure`; operations: input, float, quantized; latency: tile, threads,
    repeats, rows, precisions, nodes (each with its own); training: steps, examples (how many photos or clips it drew
    from; None where it had no labels) and log (step and means of scalars); seconds by step; bits by layer, weight and
    activation; float_layers: the reason by layer that the recipe places and that stayed float; layer_errors: `whole`, the
    mean squared error of the calibrated output against the float one on a few calibration inputs, and of those `layers`
    that were measured in time the part that each makes; machine, whose `devices` are by step, and of
    `measuring` in torch, those that it ran on: an interrupted run may go on elsewhere.
    None: latency where nothing is exported or timed, operations where they cannot be counted, training where there is
    none; and of a float training the backend, scheme, operations, latency, bits, float_layers and layer_errors, which it has not.
    """
    recipe = prepared.recipe
    training = None
    if recipe.train is not None:
        log = training_log(work)
        training = {"steps": log[-1]["step"] if log else 0, "examples": _count(prepared), "log": log}
    return {
        **_head(prepared, "quantize"),
        "backend": recipe.backend,
        "scheme": recipe.scheme,
        "sets": sets,
        "operations": operations,
        "latency": latency,
        "training": training,
        "seconds": _rounded(journal.seconds),
        "bits": {name: {"weight": weight, "activation": activation} for name, (weight, activation) in bits.items()},
        "float_layers": dict(float_layers),
        "layer_errors": dict(layer_errors),
        "machine": journal.machine(),
    }


def training_metrics(
    trainable: Trainable, work: Path, journal: Journal, *, sets: Mapping[str, Any], steps: int
) -> dict[str, Any]:
    """The content of metrics.json of a float training; see `quantization_metrics`."""
    return {
        **_head(trainable, "train"),
        "backend": None,
        "scheme": None,
        "sets": sets,
        "operations": None,
        "latency": None,
        "training": {"steps": steps, "examples": _count(trainable), "log": training_log(work)},
        "seconds": _rounded(journal.seconds),
        "bits": None,
        "float_layers": None,
        "layer_errors": None,
        "machine": journal.machine(),
    }


def write_metrics(work: Path, metrics: Mapping[str, Any]) -> None:
    """Writes metrics.json into a run's folder. Raises ValueError for a NaN or an infinity, which JSON does not have."""
    write_text(work / METRICS_FILE, json.dumps(metrics, indent=2, allow_nan=False) + "\n")


def read_metrics(file: Path) -> dict[str, Any]:
    """The content of a metrics.json as version 2 has it; files of version 1 are converted.

    What those do not tell is None. Raises UserError for a file that cannot be read, or is of a newer version.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        version = content["version"]
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}; give the output folder of a run") from None
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{file} is damaged or not a run's; run the recipe again") from None
    if version == 1:
        from qsci_plugins.pipeline.old_metrics import from_version_1

        return from_version_1(content)
    if version != _VERSION:
        raise UserError(f"{file} has version {version}, this package reads up to {_VERSION}; update qsci-plugins")
    return {"float_layers": None, "layer_errors": None, **content}  # which the first runs of this version did not tell


def _head(loaded: Loaded, kind: str) -> dict[str, Any]:
    network, recipe = loaded.float_network, loaded.recipe
    return {
        "version": _VERSION,
        "task": network.task,
        "kind": kind,
        "network": {
            "architecture": network.architecture,
            "weights": recipe.model.weights,
            "settings": network.settings,
            "scale": network.scale,
            "shortcuts": list(getattr(recipe, "shortcuts", [])),
        },
    }


def _count(trainable: Trainable) -> int | None:
    """Of how many photos, or beginnings of clips in the last phase, a training draws."""
    examples = trainable.examples
    if examples is None:
        return None
    return len(examples[-1]) if isinstance(examples, list) else len(examples)


def _rounded(seconds: Mapping[str, float]) -> dict[str, float]:
    return {step: round(value, 2) for step, value in seconds.items()}


#: means over the steps between two checkpoints; kept with the states of a run that is interrupted
_LOG = "training_log.state"

#: takes a step's number and scalars
OnStep = Callable[[int, dict[str, float]], None]


class Journal:
    """Seconds and devices of every step, kept in the work folder so that an interrupted run adds to them."""

    def __init__(self, work: Path, device: str = "cpu") -> None:
        self._file = work / JOURNAL
        self._device = device
        content = json.loads(self._file.read_text()) if self._file.is_file() else {}
        self.seconds: dict[str, float] = content.get("seconds", {})
        self.devices: dict[str, list[str]] = content.get("devices", {})

    @contextmanager
    def timed(self, step: str, device: str | None = None) -> Iterator[None]:
        """Adds the block's seconds, also where Ctrl-C ends it, and its device, by default the run's."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[step] = self.seconds.get(step, 0.0) + time.perf_counter() - started
            name = describe_device(device or self._device)
            self.devices[step] = list(dict.fromkeys([*self.devices.get(step, []), name]))
            if is_main():
                write_text(self._file, json.dumps({"seconds": self.seconds, "devices": self.devices}))

    def machine(self) -> dict[str, Any]:
        """What the run was made on."""
        return {**describe_machine(), "devices": {**self.devices, "measuring": [describe_device(self._device)]}}


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

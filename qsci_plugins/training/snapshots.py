"""Training of networks that reconstruct video from snapshot measurements, float and quantized alike."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch import distributed as dist

from qsci_plugins.data.clips import SnapshotClips
from qsci_plugins.schemes.lsq import processes
from qsci_plugins.schemes.rounding import quantize_again_in_backward
from qsci_plugins.training.loop import LoopSettings, TrainResult, train

__all__ = ["Phase", "SnapshotTraining", "train_on_snapshots"]


@dataclass(frozen=True)
class Phase:
    """`steps` steps on clips of `crop` x `crop` pixels; the rate goes from `rate` to `final_rate` on half a cosine."""

    crop: int
    steps: int
    rate: float
    final_rate: float


@dataclass(frozen=True)
class SnapshotTraining:
    """The settings of `train_on_snapshots`; `loss` is "mse" or "rmse", its root, as in the published code.

    `quantized` says that the network has quantizers, whose outputs are then not kept for the backward pass.
    """

    phases: Sequence[Phase]
    batch: int
    loss: Literal["mse", "rmse"] = "rmse"
    warmup: int = 0
    ema: float = 0.0
    precision: str = "no"
    clip: float = 0.0
    checkpoint_every: int = 200
    channels_last: bool = True
    cpu: bool = False
    seed: int = 0
    quantized: bool = False

    @property
    def steps(self) -> int:
        """Of all phases."""
        return sum(phase.steps for phase in self.phases)

    def phase_of(self, step: int) -> int:
        """The index of the phase that a 0-based step belongs to."""
        ends = list(accumulate(phase.steps for phase in self.phases))
        return min(bisect_right(ends, step), len(ends) - 1)

    def rate_at(self, step: int) -> float:
        """The learning rate of a 0-based step; the first phase begins with the linear warm-up."""
        index = self.phase_of(step)
        phase = self.phases[index]
        begin = sum(one.steps for one in self.phases[:index])
        if index == 0:
            if step < self.warmup:
                return phase.rate * (step + 1) / self.warmup
            begin = min(self.warmup, phase.steps - 1)
        length = sum(one.steps for one in self.phases[: index + 1]) - begin
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, (step - begin) / length)))
        return phase.final_rate + (phase.rate - phase.final_rate) * cosine


def train_on_snapshots(
    model: nn.Module,
    clips: Sequence[SnapshotClips],
    settings: SnapshotTraining,
    checkpoint: Path | None = None,
    *,
    parameters: list[dict[str, Any]] | None = None,
    on_step: Callable[[int, dict[str, float]], None] = lambda step, scalars: None,
) -> TrainResult:
    """Trains `model(measurement, mask, mask_sum)` towards the frames; `clips` has one source for each phase.

    Scalars of a step: loss, rate and psnr (dB of this step's clips, not clamped). `parameters` are optimizer groups whose
    `lr` multiplies the rate. See `training.loop.train` for processes, interruptions and errors.
    """
    volumes = settings.channels_last and all(p.dim() != 4 for p in model.parameters())
    if volumes:
        model = model.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]

    def draw(step: int, rank: int, world: int) -> tuple[Tensor, ...]:
        return tuple(clips[settings.phase_of(step)].draw(settings.seed, step, settings.batch, rank, world))

    def loss(network: nn.Module, batch: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, float]]:
        measurement, mask, mask_sum, frames = batch
        with quantize_again_in_backward() if settings.quantized else nullcontext():
            output = network(measurement, mask, mask_sum)
        error = (output.float() - frames).square().mean()
        everywhere = _mean_over_processes(error.detach())
        psnr = -10 * math.log10(max(float(everywhere), 1e-12))
        # the root's gradient is that of the global batch, whatever part of it this process has
        value = error if settings.loss == "mse" else error / (2 * everywhere.sqrt().clamp_min(1e-6))
        return value, {"psnr": psnr, "rmse": math.sqrt(float(everywhere))}

    loop = LoopSettings(
        steps=settings.steps,
        ema=settings.ema,
        precision=settings.precision,
        clip=settings.clip,
        checkpoint_every=settings.checkpoint_every,
        channels_last=False,  # of four dimensions
        cpu=settings.cpu,
    )
    try:
        return train(
            model, loss, draw, loop, checkpoint, parameters=parameters, rate_at=settings.rate_at, on_step=on_step
        )
    finally:
        if volumes:
            model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]


def _mean_over_processes(value: Tensor) -> Tensor:
    if processes() == 1:
        return value
    total = value.clone()
    dist.all_reduce(total)
    return total / processes()

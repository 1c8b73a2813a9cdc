"""Training of networks that reconstruct video from snapshot measurements, float and quantized alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist

from qsci_plugins.data.clips import SnapshotClips
from qsci_plugins.machine import choose_device
from qsci_plugins.schemes.lsq import processes
from qsci_plugins.schemes.rounding import quantize_again_in_backward
from qsci_plugins.training.loop import TrainResult, train_network
from qsci_plugins.training.settings import LoopSettings, VideoTraining

__all__ = ["clip_psnr", "train_on_snapshots"]


def train_on_snapshots(
    model: nn.Module,
    clips: Sequence[SnapshotClips],
    settings: VideoTraining,
    checkpoint: Path | None = None,
    *,
    seed: int = 0,
    quantized: bool = False,
    parameters: list[dict[str, Any]] | None = None,
    device: str = "auto",
    on_step: Callable[[int, dict[str, float]], None] = lambda step, scalars: None,
    note: Callable[[str], None] = lambda text: None,
) -> TrainResult:
    """Trains `model(measurement, mask, mask_sum)` towards the frames; `clips` has one source for each phase.

    `loss` "rmse" is the root of "mse", as in the published code. Which clips a step draws follows from `seed`; `quantized`
    says that the network has quantizers, whose outputs are then not kept for the backward pass.
    Scalars of a step: loss, rate and psnr (dB of this step's clips, not clamped). `parameters` are optimizer groups whose
    `lr` multiplies the rate. See `training.loop.train_network` for processes, interruptions, `note` and errors.
    """
    volumes = settings.channels_last and all(p.dim() != 4 for p in model.parameters())
    if volumes:
        model = model.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]

    def draw(step: int, rank: int, world: int) -> tuple[Tensor, ...]:
        return tuple(clips[settings.phase_of(step)].draw(seed, step, settings.batch, rank, world))

    def loss(network: nn.Module, batch: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, Tensor]]:
        measurement, mask, mask_sum, frames = batch
        with quantize_again_in_backward() if quantized else nullcontext():
            output = network(measurement, mask, mask_sum)
        error = (output.float() - frames).square().mean()
        everywhere = _mean_over_processes(error.detach())
        # the root's gradient is that of the global batch, whatever part of it this process has
        value = error if settings.loss == "mse" else error / (2 * everywhere.sqrt().clamp_min(1e-6))
        return value, {"psnr": clip_psnr(everywhere), "rmse": everywhere.sqrt()}

    device = "cpu" if settings.cpu else device
    precision = settings.precision
    if precision == "auto" and choose_device(device) == "cpu":
        precision = "float32"  # torch 2.14's weight gradient of a bf16 conv3d is NaN for some sizes on a CPU
    loop = LoopSettings(
        steps=settings.steps,
        ema=settings.ema,
        precision=precision,
        clip=settings.clip,
        checkpoint_every=settings.checkpoint_every,
        channels_last=False,  # of four dimensions
        device=device,
        workers=settings.workers,
        compile=settings.compile,
    )
    try:
        return train_network(
            model,
            loss,
            draw,
            loop,
            checkpoint,
            parameters=parameters,
            rate_at=settings.rate_at,
            rate_keys="the rates in train.phases",
            on_step=on_step,
            note=note,
        )
    finally:
        if volumes:
            model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]


def clip_psnr(error: Tensor) -> Tensor:
    """PSNR in dB, a scalar, of a mean squared error of frames in 0..1."""
    return -10 * torch.log10(error.clamp_min(1e-12))


def _mean_over_processes(value: Tensor) -> Tensor:
    if processes() == 1:
        return value
    total = value.clone()
    dist.all_reduce(total)
    return total / processes()

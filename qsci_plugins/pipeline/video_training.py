"""Training on snapshots from a recipe: float networks whole, quantized ones as a step of their run."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from qsci_plugins.data.clips import SnapshotClips
from qsci_plugins.pipeline.metrics import Journal, seen, stopped, watched
from qsci_plugins.pipeline.output import is_main
from qsci_plugins.pipeline.task import Prepared, Trainable
from qsci_plugins.progress import Progress
from qsci_plugins.schemes.scheme import QuantizedNetwork
from qsci_plugins.schemes.shortcuts import widen_shortcuts
from qsci_plugins.training.loop import TrainResult
from qsci_plugins.training.parameters import relative_groups
from qsci_plugins.training.recomputation import recompute_in_backward
from qsci_plugins.training.snapshots import clip_psnr, train_on_snapshots

__all__ = ["train_float", "train_quantized"]


def train_quantized(
    prepared: Prepared, quantized: QuantizedNetwork, work: Path, journal: Journal, progress: Progress
) -> None:
    """Trains the quantized network in place. Ctrl-C keeps the state in `work` and raises KeyboardInterrupt."""
    recipe = prepared.recipe
    if is_main():
        progress.note(f"the float network has {_float_psnr(prepared):.2f} dB on clips of the first steps")
    widen_shortcuts(quantized, 1 / recipe.shortcut_start)
    groups = relative_groups(quantized, recipe.train.quantizer_rate)
    with journal.timed("training"):
        result = _train(quantized.model, prepared, work, progress, groups)
    quantized.model.load_state_dict(result.weights)


#: enough to see what a quantized network is to reach
_STEPS = 16


@torch.no_grad()
def _float_psnr(prepared: Prepared) -> float:
    """Mean PSNR in dB of the float network on the clips of the first steps, which are harder, or easier, than the scenes."""
    found = []
    for step in range(_STEPS):
        *inputs, frames = prepared.examples[0].draw(prepared.recipe.seed, step, prepared.recipe.train.batch)
        found.append(clip_psnr((seen(prepared.float_network.module, *inputs) - frames).square().mean()))
    return float(torch.stack(found).mean())


def train_float(trainable: Trainable, work: Path, journal: Journal, progress: Progress) -> TrainResult:
    """Trains the float network. Ctrl-C keeps the state in `work` and raises KeyboardInterrupt."""
    with journal.timed("training"):
        return _train(trainable.network.module, trainable, work, progress)


def _train(
    module: nn.Module,
    trainable: Trainable,
    work: Path,
    progress: Progress,
    groups: list[dict[str, Any]] | None = None,
) -> TrainResult:
    """Trains `module` (the float network, or with optimizer `groups` the quantized one) as the recipe's `train` says."""
    settings, clips = trainable.recipe.train, trainable.examples
    blocks = trainable.network.blocks
    again = recompute_in_backward(module, blocks) if settings.gradient_checkpointing else nullcontext()

    def text(scalars: dict[str, float]) -> str:
        return f"{scalars['psnr']:.2f} dB"

    with (
        again,
        watched(
            "training", settings.steps, settings, work, progress, text, lambda: _shown(module, clips[-1])
        ) as on_step,
    ):
        result = train_on_snapshots(
            module,
            clips,
            settings,
            work / "training.state",
            seed=trainable.recipe.seed,
            quantized=groups is not None,
            parameters=groups,
            device=trainable.device,
            on_step=on_step,
            note=progress.note,
        )
        if not result.finished:
            raise stopped(result.steps, "training")
    return result


def _shown(module: nn.Module, clips: SnapshotClips) -> Tensor:
    """First and last frame of one clip as the network sees it now, above the true ones: (1 or 3,h,w) in 0..1."""
    *inputs, expected = (part[:1] for part in clips.draw(0, 0, 1))
    rows = [
        torch.cat([frames.select(-3, 0), frames.select(-3, -1)], dim=-1)
        for frames in (seen(module, *inputs)[0], expected[0])
    ]
    picture = torch.cat(rows, dim=-2).float().clamp(0, 1)
    return picture if picture.dim() == 3 else picture[None]

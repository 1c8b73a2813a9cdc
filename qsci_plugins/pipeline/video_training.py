"""Training on snapshots from a recipe: float networks whole, quantized ones as a step of their run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from qsci_plugins.architectures.network import Network
from qsci_plugins.data.clips import SnapshotClips
from qsci_plugins.files import write_bytes
from qsci_plugins.machine import describe_machine
from qsci_plugins.pipeline.networks import load_recipe_video_network
from qsci_plugins.pipeline.output import BOARD, WEIGHTS_FILE, check_output, is_main, shared_work_folder, write_metrics
from qsci_plugins.pipeline.video_forms import float_video_form, measure_video
from qsci_plugins.pipeline.video_prepare import ClipSource, check_crops, find_scenes, phase_clips
from qsci_plugins.progress import Progress
from qsci_plugins.recipes.reading import recipe_text
from qsci_plugins.recipes.schema import FloatVideoRecipe, VideoSet, VideoTraining
from qsci_plugins.training.loop import TrainResult
from qsci_plugins.training.recomputation import recompute_in_backward
from qsci_plugins.training.snapshots import train_on_snapshots

__all__ = [
    "limits",
    "train_snapshots",
    "train_video_recipe",
]


def train_video_recipe(
    recipe: FloatVideoRecipe, output: str | Path, *, force: bool = False, progress: Progress | None = None
) -> Path:
    """Trains a float SCI network, measures it, and leaves weights.safetensors, metrics.json and recipe.yaml.

    Ctrl-C saves the state beside the output and raises KeyboardInterrupt; the same call goes on from there, to the same
    weights. Started by `accelerate launch`, all processes train and the first one does the rest. Raises UserError, before
    any training, for folders, scenes or settings that do not fit.
    """
    progress = (progress or Progress()) if is_main() else Progress()
    output = Path(output)
    if is_main():
        check_output(output, force)
    network = load_recipe_video_network(recipe.model, recipe.seed)
    check_crops(recipe.train, network)
    color = network.channels == 3
    source = ClipSource(recipe.clips, color, progress)
    scenes = find_scenes(recipe.evaluate, len(source.mask), color)
    clips = phase_clips(recipe.train, source)
    with shared_work_folder(output, recipe_text(recipe), force, cpu=recipe.train.cpu) as work:
        result = train_snapshots(network.module, network, clips, recipe.train, recipe.seed, work, "training", progress)
        if not is_main():
            return output
        network.module.load_state_dict(result.weights)
        network.module.eval()
        write_bytes(work / WEIGHTS_FILE, save(result.weights, {"format": "pt"}))
        metrics = {
            "version": 1,
            "machine": describe_machine(),
            "network": {"architecture": network.architecture, "settings": network.settings},
            "clips": len(clips[-1]),
            "steps": result.steps,
            "seconds_of_last_call": round(result.seconds, 1),
            "sets": measure_video({"float": float_video_form(network)}, scenes, progress, limits(recipe.evaluate)),
        }
        write_metrics(work, metrics)
    return output


def limits(sets: Sequence[VideoSet]) -> dict[str, int | None]:
    """Of how many measurements of each scene a set is measured."""
    return {one.name: one.measurements for one in sets}


def train_snapshots(
    module: nn.Module,
    network: Network,
    clips: list[SnapshotClips],
    settings: VideoTraining,
    seed: int,
    work: Path,
    title: str,
    progress: Progress,
    groups: list[dict[str, Any]] | None = None,
) -> TrainResult:
    """Trains `module` (the float network, or with optimizer `groups` the quantized one) as `train` says.

    Its state is `title`.state in the work folder. Raises KeyboardInterrupt where somebody stopped it.
    """
    again = recompute_in_backward(module, network.blocks) if settings.gradient_checkpointing else nullcontext()
    with progress.stage(title, settings.steps) as advance, again, _board(module, clips[-1], settings, work) as write:

        def on_step(step: int, scalars: dict[str, float]) -> None:
            write(step, scalars)
            advance(step, f"{scalars['psnr']:.2f} dB")

        result = train_on_snapshots(
            module,
            clips,
            settings,
            work / f"{title}.state",
            seed=seed,
            quantized=groups is not None,
            parameters=groups,
            on_step=on_step,
        )
    if not result.finished:
        raise KeyboardInterrupt(f"stopped after step {result.steps} of {title}; the same command goes on from there")
    return result


@contextmanager
def _board(
    module: nn.Module, clips: SnapshotClips, settings: VideoTraining, work: Path
) -> Iterator[Callable[[int, dict[str, float]], None]]:
    """Writes a step's scalars and, now and then, one clip as the network sees it now."""
    if not settings.tensorboard or not is_main():
        yield lambda step, scalars: None
        return
    from qsci_plugins.training.board import Board

    board: Board | None = None
    *inputs, expected = (one[:1] for one in clips.draw(0, 0, 1))

    def write(step: int, scalars: dict[str, float]) -> None:
        nonlocal board
        board = board or Board(work / BOARD, step)
        board.scalars(step, scalars)
        if step % settings.picture_every == 0:
            board.pictures(step, _seen(module, inputs), expected[0])

    try:
        yield write
    finally:
        if board is not None:
            board.close()


@torch.no_grad()
def _seen(module: nn.Module, inputs: list[Tensor]) -> Tensor:
    device = next(module.parameters()).device
    module.eval()
    try:
        frames: Tensor = module(*(one.to(device) for one in inputs))[0]
    finally:
        module.train()
    return frames

"""Training on images from a recipe: float networks whole, quantized ones as a step of their run."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qsci_plugins.architectures.network import Network
from qsci_plugins.pipeline.metrics import Journal, seen, stopped, watched
from qsci_plugins.pipeline.task import Prepared, Trainable
from qsci_plugins.progress import Progress
from qsci_plugins.schemes.scheme import QuantizedNetwork
from qsci_plugins.training.loop import TrainResult, train_network
from qsci_plugins.training.settings import CADyQTraining

if TYPE_CHECKING:
    from qsci_plugins.data.patches import PatchPairs

__all__ = ["train_float", "train_quantized"]

#: how often fine-tuning may see a patch before more patches give more than more steps
_OFTEN = 40


def train_quantized(
    prepared: Prepared, quantized: QuantizedNetwork, work: Path, journal: Journal, progress: Progress
) -> None:
    """Fine-tunes, or trains CADyQ's selectors, in place. Ctrl-C keeps the state in `work` and raises KeyboardInterrupt."""
    if isinstance(prepared.recipe.train, CADyQTraining):
        with journal.timed("training"):
            _train_selectors(prepared, quantized, work, progress)
    else:
        with journal.timed("fine_tuning"):
            _fine_tune(prepared, quantized, work, progress)


def _fine_tune(prepared: Prepared, quantized: QuantizedNetwork, work: Path, progress: Progress) -> None:
    from qsci_plugins.training.finetune import finetune

    train, network = prepared.recipe.train, prepared.network
    patches = torch.cat(prepared.batches)
    times = train.steps * train.batch // len(patches)
    if times >= _OFTEN:
        progress.note(
            f"fine-tuning sees each of the {len(patches)} patches {times:,} times: more of them (calibrate.count) may give"
            " more than as many steps do"
        )

    def picture() -> Tensor:
        low = patches[:1]
        return _above(_copied(quantized.model, low), _copied(network.module, low), network.value_range)

    with watched(
        "fine-tuning", train.steps, train, work, progress, lambda scalars: f"loss {scalars['loss']:.4f}", picture
    ) as on_step:
        result = finetune(
            quantized,
            network.module,
            patches,
            train,
            work / "finetune.state",
            blocks=network.blocks,
            on_step=on_step,
            note=progress.note,
        )
        if not result.finished:
            raise stopped(result.steps, "fine-tuning")


def _train_selectors(prepared: Prepared, quantized: QuantizedNetwork, work: Path, progress: Progress) -> None:
    from qsci_plugins.training.attention_transfer import feature_sites
    from qsci_plugins.training.cadyq import train_cadyq

    train, network, pairs = prepared.recipe.train, prepared.network, prepared.examples
    low, high = pairs.draw(train.seed, 0, 1)
    example = (low * (network.value_range / 255)).to(prepared.device)
    sites = feature_sites(network.module, network.blocks, list(quantized.layers), example)

    def text(scalars: dict[str, float]) -> str:
        return f"L1 {scalars['l1']:.3f}, {scalars['psnr']:.2f} dB, FAB {scalars['fab']:.2f}"

    def picture() -> Tensor:
        output = _copied(quantized.model, example)
        return _above(output, high * (network.value_range / 255), network.value_range)

    steps = train.warm_up + train.steps
    with watched("training", steps, train, work, progress, text, picture) as on_step:
        result = train_cadyq(
            quantized, pairs, train, sites, work, device=prepared.device, on_step=on_step, note=progress.note
        )
        if not result.finished:
            raise stopped(result.steps, "training")


def train_float(trainable: Trainable, work: Path, journal: Journal, progress: Progress) -> TrainResult:
    """Trains with L1 on random patches. Ctrl-C keeps the state in `work` and raises KeyboardInterrupt."""
    recipe, network, pairs = trainable.recipe, trainable.network, trainable.examples
    train, gain = recipe.train, network.value_range / 255

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        low, high = batch
        return F.l1_loss(model(low * gain).float() / gain, high), {}

    def draw(step: int, rank: int, world: int) -> tuple[Tensor, Tensor]:
        low, high = pairs.draw(recipe.seed, step, train.batch, rank, world)
        return low, high

    def text(scalars: dict[str, float]) -> str:
        return f"L1 {scalars['loss']:.3f}"

    with (
        journal.timed("training"),
        watched("training", train.steps, train, work, progress, text, lambda: _shown(network, pairs)) as on_step,
    ):
        loop = train.loop(trainable.device)
        file = work / "training.state"
        result = train_network(network.module, loss, draw, loop, file, on_step=on_step, note=progress.note)
        if not result.finished:
            raise stopped(result.steps, "training")
    return result


def _shown(network: Network, pairs: PatchPairs) -> Tensor:
    low, high = pairs.draw(0, 0, 1)
    gain = network.value_range / 255
    return _above(seen(network.module, low * gain), high * gain, network.value_range)


def _copied(model: nn.Module, low: Tensor) -> Tensor:
    """What the network makes of a patch now; a copy runs, as the hooks of the training listen to it."""
    return seen(copy.deepcopy(model), low)


def _above(output: Tensor, expected: Tensor, value_range: float) -> Tensor:
    """One output (1,3,h,w) above the expected one, in 0..1."""
    return torch.cat([output[0], expected[0].float().cpu()], dim=-2).div(value_range).clamp(0, 1)

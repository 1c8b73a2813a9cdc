"""Fine-tuning of a calibrated network towards its float self, on low-resolution images alone."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from qsci_plugins.errors import UserError
from qsci_plugins.safe_load import first_line, load_without_code
from qsci_plugins.schemes.ledger import record_bits
from qsci_plugins.schemes.rounding import quantize_again_in_backward
from qsci_plugins.schemes.scheme import QuantizedNetwork
from qsci_plugins.training.loop import save_atomically, uses_bf16
from qsci_plugins.training.parameters import Role, parameter_groups
from qsci_plugins.training.teacher import BlockOutputs, Teacher

__all__ = ["FinetuneResult", "FinetuneSettings", "finetune"]


@dataclass(frozen=True)
class FinetuneSettings:
    """`joint` trains weights and ranges together, its rates relative to each quantizer's step or range, on a cosine.

    `published` is AdaBM's procedure: turns of `turn` steps cycle through weight ranges, activation ranges and mappings
    (absolute rates), each of which multiplies its own rates by `decay` after its turn; its loss adds the distance of block
    outputs and, in the mapping turns, the mean bits above the base. `precision` "auto" is bf16 where the CPU has it.
    """

    steps: int = 200
    batch: int = 2
    schedule: Literal["joint", "published"] = "joint"
    weight_rate: float = 0.01
    step_rate: float = 0.002
    range_rate: float = 0.003
    turn: int = 50
    decay: float = 0.9
    published_range_rate: float = 0.01
    published_image_rate: float = 0.1
    published_layer_rate: float = 0.01
    feature_weight: float = 10.0
    bit_weight: float = 50.0
    precision: Literal["auto", "float32", "bf16"] = "auto"
    checkpoint_every: int = 50
    seed: int = 0


@dataclass(frozen=True)
class FinetuneResult:
    """Steps done in all, seconds of this call, the losses of its steps, and whether it came to the end."""

    steps: int
    seconds: float
    losses: list[float]
    finished: bool


def finetune(
    network: QuantizedNetwork,
    teacher: nn.Module,
    patches: Tensor,
    settings: FinetuneSettings,
    checkpoint: Path | None = None,
    *,
    blocks: list[str] | None = None,
    on_step: Callable[[int, dict[str, float]], None] = lambda step, scalars: None,
) -> FinetuneResult:
    """Trains the quantized network on `patches` (P,C,H,W), in the network's value range, without labels.

    Loss: L1 to the float network's output, plus the published terms in that schedule. A step's patches follow from the
    seed and its number; with `checkpoint` an interrupted run goes on where it stopped and ends with the same weights.
    Ctrl-C saves and returns with `finished=False`. Raises UserError for a loss that is not finite, a checkpoint of another
    run, and a network that was not calibrated.
    """
    if not network.calibrated():
        raise UserError("fine-tuning needs a calibrated network; calibrate it first")
    started = time.perf_counter()
    published = settings.schedule == "published"
    names = list(blocks or []) if published and settings.feature_weight else []
    groups = parameter_groups(network)
    _scale_rates(groups, settings)
    optimizer = torch.optim.Adam([{k: v for k, v in g.items() if k != "role"} for g in groups], betas=(0.9, 0.999))
    rates = [g["lr"] for g in groups]
    trained = {id(p) for g in groups for p in g["params"]}
    frozen = [p for p in network.model.parameters() if p.requires_grad and id(p) not in trained]
    step = _restore(checkpoint, network.model, optimizer, settings) if checkpoint and checkpoint.is_file() else 0
    guide = Teacher(teacher, patches, names, checkpoint.parent if checkpoint else None)
    features = BlockOutputs(network.model, names) if names else None
    bf16 = uses_bf16(settings.precision)
    losses: list[float] = []

    def save() -> None:
        if checkpoint is not None:
            state = {"model": network.model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
            save_atomically({**state, "settings": asdict(settings)}, checkpoint)

    was_training = network.model.training
    network.model.eval()  # normalisation layers keep their statistics
    layout = torch.channels_last if patches.dim() == 4 else torch.contiguous_format
    network.model.to(memory_format=layout)  # type: ignore[call-overload]
    for parameter in frozen:
        parameter.requires_grad_(False)
    finished = True
    try:
        while step < settings.steps:
            role = (Role.WEIGHT_RANGE, Role.ACTIVATION_RANGE, Role.MAPPING)[step // settings.turn % 3]
            if not _set_rates(optimizer, groups, rates, settings, step, role if published else None):
                step += 1  # a turn for parameters that this network does not have
                continue
            indices = _draw(len(patches), settings.batch, settings.seed, step)
            expected, expected_features = guide(indices)
            with (
                record_bits() as ledger,
                quantize_again_in_backward(),
                torch.autocast(patches.device.type, torch.bfloat16, enabled=bf16),
            ):
                output = network.model(patches[indices].contiguous(memory_format=layout))
            loss = (output.float() - expected).abs().mean()
            if features is not None:
                # as published: one norm over the whole batch, divided by its size
                distances = [
                    (a - b).norm() / len(indices) for a, b in zip(features.take(), expected_features, strict=True)
                ]
                loss = loss + settings.feature_weight * torch.stack(distances).mean()
            if published and role is Role.MAPPING:
                above = ledger.mean(network.counted()).mean() - network.scheme.base_bits
                loss = loss + settings.bit_weight * above.clamp_min(0)
            if not torch.isfinite(loss):
                lower = "published_range_rate" if published else "weight_rate, step_rate and range_rate"
                raise UserError(f"fine-tuning's loss became {loss.item()} at step {step}; lower train's {lower}")
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            step += 1
            losses.append(loss.item())
            on_step(step, {"loss": losses[-1]})
            if step % settings.checkpoint_every == 0 and step < settings.steps:
                save()
    except KeyboardInterrupt:
        finished = False
    finally:
        guide.close()
        if features is not None:
            features.close()
        for parameter in frozen:
            parameter.requires_grad_(True)
        network.model.to(memory_format=torch.contiguous_format).train(was_training)  # type: ignore[call-overload]
    save()
    return FinetuneResult(step, time.perf_counter() - started, losses, finished)


def _scale_rates(groups: list[dict[str, Any]], settings: FinetuneSettings) -> None:
    """`lr` of every group: its size (a step, a range) times the relative rate, or the published absolute one."""
    if settings.schedule == "published":
        absolute = {
            Role.WEIGHT_RANGE: settings.published_range_rate,
            Role.ACTIVATION_RANGE: settings.published_range_rate,
            Role.IMAGE_MAPPING: settings.published_image_rate,
            Role.LAYER_MAPPING: settings.published_layer_rate,
        }
        groups[:] = [g for g in groups if g["role"] in absolute]
        for group in groups:
            group["lr"] = absolute[group["role"]]
            del group["size"]
        return
    relative = {
        Role.WEIGHT: settings.weight_rate,
        Role.WEIGHT_RANGE: settings.step_rate,
        Role.ACTIVATION_RANGE: settings.range_rate,
    }
    groups[:] = [g for g in groups if g["role"] in relative]
    for group in groups:
        group["lr"] = relative[group["role"]] * group.pop("size")


def _set_rates(
    optimizer: torch.optim.Optimizer,
    groups: list[dict[str, Any]],
    rates: list[float],
    settings: FinetuneSettings,
    step: int,
    turn_role: Role | None,
) -> bool:
    """Sets the rates of a step. In the published schedule only the turn's parameters move; False where there are none."""
    if turn_role is None:
        factor = 0.5 * (1 + math.cos(math.pi * step / settings.steps)) * min(1.0, (step + 1) / 10)
    else:
        factor = settings.decay ** (step // (3 * settings.turn))
    moving = False
    for group, described, rate in zip(optimizer.param_groups, groups, rates, strict=True):
        moves = turn_role is None or described["role"] in turn_role.members()
        moving = moving or moves
        group["lr"] = rate * factor
        for parameter in group["params"]:
            parameter.requires_grad_(moves)
    return moving


def _draw(count: int, batch: int, seed: int, step: int) -> list[int]:
    """The patches of a step: every patch once before any comes again, in an order of its own for each round."""
    picks = []
    for position in range(step * batch, (step + 1) * batch):
        generator = torch.Generator().manual_seed(seed * 1_000_003 + position // count)
        picks.append(int(torch.randperm(count, generator=generator)[position % count]))
    return picks


def _restore(file: Path, model: nn.Module, optimizer: torch.optim.Optimizer, settings: FinetuneSettings) -> int:
    try:
        state = load_without_code(file)
        if state["settings"] != asdict(settings):
            raise ValueError("it was made with other settings")
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
    except (UserError, RuntimeError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{file} does not continue this run ({first_line(error)}); remove it, or use another output folder"
        ) from error
    return int(state["step"])

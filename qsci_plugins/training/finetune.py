"""Fine-tuning of a calibrated network towards its float self, on low-resolution images alone."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from qsci_plugins.errors import UserError
from qsci_plugins.schemes.bit_width import record_bits
from qsci_plugins.schemes.rounding import quantize_again_in_backward
from qsci_plugins.schemes.scheme import QuantizedNetwork
from qsci_plugins.training.loop import train_network
from qsci_plugins.training.parameters import Role, parameter_groups, scale_rates
from qsci_plugins.training.settings import FineTuning, LoopSettings

__all__ = ["BlockOutputs", "FinetuneResult", "Teacher", "bits_above", "finetune"]


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
    settings: FineTuning,
    checkpoint: Path | None = None,
    *,
    blocks: list[str] | None = None,
    on_step: Callable[[int, dict[str, float]], None] = lambda step, scalars: None,
    note: Callable[[str], None] = lambda text: None,
) -> FinetuneResult:
    """Trains the quantized network on `patches` (P,C,H,W), in the network's value range, without labels.

    Loss: L1 to the float network's output, plus the published terms in that schedule. A step's patches follow from the
    seed and its number; with `checkpoint` an interrupted run goes on where it stopped and ends with the same weights.
    It runs on the device of the patches, where `teacher` is too; `note` hears where `compile` cannot be had.
    Ctrl-C saves and returns with `finished=False`. Raises UserError for a loss that is not finite, a checkpoint of another
    run, and a network that was not calibrated.
    """
    if not network.calibrated():
        raise UserError("fine-tuning needs a calibrated network; calibrate it first")
    started = time.perf_counter()
    published = settings.schedule == "published"
    names = list(blocks or []) if published and settings.feature_weight else []
    groups = parameter_groups(network)
    scale_rates(groups, settings)
    trained = {id(p) for g in groups for p in g["params"]}
    before = {p: p.requires_grad for p in (*network.model.parameters(), *(p for g in groups for p in g["params"]))}
    guide = Teacher(teacher, patches, names, checkpoint.parent if checkpoint else None)
    features = BlockOutputs(network.model, names) if names else None
    layout = torch.channels_last if patches.dim() == 4 else torch.contiguous_format
    order = _Order(len(patches), settings.batch, settings.seed)
    losses: list[float] = []

    def draw(step: int, rank: int, world: int) -> tuple[Any, ...]:
        indices = order.of(step)[rank::world]
        # from memory that is not pinned, so few numbers are copied without waiting for the GPU
        places = torch.tensor(indices).to(patches.device, non_blocking=True)
        inputs = patches.index_select(0, places).contiguous(memory_format=layout)
        return inputs, *guide(indices, places), _turn_of(settings, step)

    def loss(model: nn.Module, batch: tuple[Any, ...]) -> tuple[Tensor, dict[str, Tensor]]:
        inputs, expected, expected_features, turn = batch
        with record_bits() as ledger, quantize_again_in_backward():
            output = model(inputs)
        value = (output.float() - expected).abs().mean()
        if features is not None:
            distances = [_feature_distance(a, b) for a, b in zip(features.take(), expected_features, strict=True)]
            value = value + settings.feature_weight * torch.stack(distances).mean()
        if turn is Role.MAPPING:
            mean_bits = ledger.mean(network.counted()).mean()
            value = value + settings.bit_weight * bits_above(mean_bits, network.scheme.base_bits)
        return value, {}

    def keep_loss(step: int, scalars: dict[str, float]) -> None:
        losses.append(scalars["loss"])
        on_step(step, scalars)

    loop = LoopSettings(
        steps=settings.steps,
        ema=0.0,
        precision=settings.precision,
        checkpoint_every=settings.checkpoint_every,
        channels_last=False,  # the patches and the network are so already, and what the teacher says is not
        device=str(patches.device),
        keep_statistics=True,
        workers=0,  # the patches lie where the network is
        compile=settings.compile,
    )
    was_training = network.model.training
    network.model.to(memory_format=layout)  # type: ignore[call-overload]
    for parameter in before:
        parameter.requires_grad_(id(parameter) in trained)
    try:
        result = train_network(
            network.model,
            loss,
            draw,
            loop,
            checkpoint,
            parameters=[{"params": g["params"], "lr": g["lr"]} for g in groups],
            rate_at=lambda step: _factor(settings, step),
            choose=lambda step: _choose(groups, _turn_of(settings, step)),
            checkpoint_settings=settings.model_dump(exclude={"compile"}),
            rate_keys=f"train.{'published_range_rate' if published else 'weight_rate, step_rate and range_rate'}",
            on_step=keep_loss,
            note=note,
        )
    finally:
        guide.close()
        if features is not None:
            features.close()
        for parameter, asked in before.items():
            parameter.requires_grad_(asked)
        network.model.to(memory_format=torch.contiguous_format).train(was_training)  # type: ignore[call-overload]
    return FinetuneResult(result.steps, time.perf_counter() - started, losses, result.finished)


def _turn_of(settings: FineTuning, step: int) -> Role | None:
    """What moves in a step of the published schedule; None in the joint one, where all does."""
    if settings.schedule == "joint":
        return None
    return (Role.WEIGHT_RANGE, Role.ACTIVATION_RANGE, Role.MAPPING)[step // settings.turn % 3]


def _factor(settings: FineTuning, step: int) -> float:
    """What multiplies all rates in a step."""
    if settings.schedule == "joint":
        return 0.5 * (1 + math.cos(math.pi * step / settings.steps)) * min(1.0, (step + 1) / 10)
    return settings.decay ** (step // (3 * settings.turn))


def _choose(groups: list[dict[str, Any]], turn: Role | None) -> bool:
    """Has a turn's parameters alone ask for gradients; False where this network has none of them."""
    moving = False
    for group in groups:
        moves = turn is None or group["role"] in turn.members()
        moving = moving or moves
        for parameter in group["params"]:
            parameter.requires_grad_(moves)
    return moving


class _Order:
    """Which patches a step takes: every one once before any comes again, in an order of its own for each round."""

    def __init__(self, count: int, batch: int, seed: int) -> None:
        self._count, self._batch, self._seed = count, batch, seed
        self._round: tuple[int, list[int]] = (-1, [])

    def of(self, step: int) -> list[int]:
        """The indices of a 0-based step's patches."""
        positions = range(step * self._batch, (step + 1) * self._batch)
        return [self._permutation(position // self._count)[position % self._count] for position in positions]

    def _permutation(self, number: int) -> list[int]:
        if self._round[0] != number:
            generator = torch.Generator().manual_seed(self._seed * 1_000_003 + number)
            self._round = number, torch.randperm(self._count, generator=generator).tolist()
        return self._round[1]


def bits_above(mean_bits: Tensor, base: float) -> Tensor:
    """AdaBM's bit loss, a scalar: max(mean bits - base, 0).

    Layer factors start with the mean at the base itself, where a maximum passes half of the gradient on and a clamp all
    of it; with a clamp the factors end elsewhere.
    """
    above = mean_bits - base
    return torch.maximum(above, torch.zeros_like(above))


#: what an output of zeros is divided by
_TINY = 1e-12


def _feature_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """AdaBM's structural loss of a block, a scalar, from its outputs (N, numbers) in both networks.

    As its published code has it: a batch is brought to unit length as a whole, not each sample, and the mean over the
    samples' distances is divided by N once more.
    """
    student, teacher = student / student.norm().clamp_min(_TINY), teacher / teacher.norm().clamp_min(_TINY)
    return (student - teacher).norm(dim=1).mean() / len(student)


class BlockOutputs:
    """Collects the outputs of named blocks during forwards of a model: each (N, numbers)."""

    def __init__(self, model: nn.Module, blocks: Sequence[str]) -> None:
        self.values: list[Tensor] = []
        self._handles = [model.get_submodule(name).register_forward_hook(self._keep) for name in blocks]

    def _keep(self, module: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
        self.values.append(output.float().flatten(1))

    def take(self) -> list[Tensor]:
        """The outputs since the last call."""
        values, self.values = self.values, []
        return values

    def close(self) -> None:
        """Leaves the model as it was."""
        for handle in self._handles:
            handle.remove()


#: patches that pass through the float network together on a GPU; on a CPU one at a time is as fast, and takes less memory
_TOGETHER = 16


class Teacher:
    """A float network's outputs for `patches` (P,C,H,W), where these are, and its blocks' outputs (float16).

    Those are in a file, or on a GPU that has room for them. Each patch passes through the network once, when it is first
    asked for, or on a GPU with one that is. `close` removes the file.
    """

    def __init__(
        self, model: nn.Module, patches: Tensor, blocks: Sequence[str] = (), folder: Path | None = None
    ) -> None:
        self._model = model.eval()
        self._patches = patches
        self._outputs: Tensor | None = None
        self._waiting = dict.fromkeys(range(len(patches)))
        self._features: list[Tensor] = []  # of unit length, so that float16 holds them
        self._lengths: list[Tensor] = []
        self._hooks = BlockOutputs(model, blocks) if blocks else None
        self._folder = TemporaryDirectory(dir=folder, prefix=".teacher-") if blocks else None

    @torch.no_grad()
    def __call__(self, indices: Sequence[int], places: Tensor | None = None) -> tuple[Tensor, list[Tensor]]:
        """Outputs (N,C,sH,sW) and the blocks' outputs, each (N, numbers), of the patches at `indices`.

        `places` are the same numbers on the patches' device, for those who have them.
        """
        while wanted := [index for index in dict.fromkeys(indices) if index in self._waiting]:
            together = 1
            if self._patches.is_cuda:
                wanted = list(dict.fromkeys([*wanted, *self._waiting]))
                together = _TOGETHER
            self._compute(wanted[:together])
        assert self._outputs is not None
        chosen = torch.tensor(list(indices))
        places = chosen.to(self._outputs.device) if places is None else places
        features = [
            kept.index_select(0, places if kept.is_cuda else chosen).to(lengths.device).float() * lengths[places]
            for kept, lengths in zip(self._features, self._lengths, strict=True)
        ]
        return self._outputs.index_select(0, places), features

    def _compute(self, indices: list[int]) -> None:
        outputs = self._model(self._patches[indices]).float()
        features = self._hooks.take() if self._hooks else []
        if self._outputs is None:
            self._outputs = outputs.new_empty(len(self._patches), *outputs.shape[1:])
            on_gpu = self._fits([feature.shape[1] for feature in features])
            self._features = [
                feature.new_empty(len(self._patches), feature.shape[1], dtype=torch.float16)
                if on_gpu
                else self._file(number, feature.shape[1])
                for number, feature in enumerate(features)
            ]
            self._lengths = [feature.new_empty(len(self._patches), 1) for feature in features]
        self._outputs[indices] = outputs
        for stored, lengths, feature in zip(self._features, self._lengths, features, strict=True):
            length = feature.norm(dim=1, keepdim=True)
            lengths[indices] = length
            stored[indices] = (feature / length.clamp_min(_TINY)).half().to(stored.device)
        for index in indices:
            del self._waiting[index]

    def _fits(self, sizes: list[int]) -> bool:
        """Whether a GPU keeps half of its free memory beside the blocks' outputs."""
        if not self._patches.is_cuda:
            return False
        free, _ = torch.cuda.mem_get_info(self._patches.device)
        return 2 * len(self._patches) * sum(sizes) < free // 2

    def _file(self, number: int, size: int) -> Tensor:
        assert self._folder is not None
        count = len(self._patches)
        path = str(Path(self._folder.name) / f"{number}.f16")
        if hasattr(os, "posix_fallocate"):
            # a hole in a mapped file that finds no room on disk would end the process
            with open(path, "wb") as file:
                try:
                    os.posix_fallocate(file.fileno(), 0, 2 * count * size)
                except OSError as error:
                    raise UserError(f"no room for the float network's outputs in {path}: {error.strerror}") from error
        return torch.from_file(path, shared=True, size=count * size, dtype=torch.float16).view(count, size)

    def close(self) -> None:
        """Removes the hooks and the file."""
        if self._hooks:
            self._hooks.close()
        self._features = []
        if self._folder is not None:
            self._folder.cleanup()

"""CADyQ's training: an 8-bit PAMS warm-up, then bit selectors with a bit loss and a teacher (ECCV 2022, Section 3.3)."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qsci_plugins.data.patches import PatchPairs
from qsci_plugins.errors import UserError
from qsci_plugins.machine import choose_device
from qsci_plugins.schemes.bit_selector import BitSelector
from qsci_plugins.schemes.bit_width import record_bits
from qsci_plugins.schemes.pams import SymmetricActivation
from qsci_plugins.schemes.scheme import QuantizedNetwork
from qsci_plugins.training.attention_transfer import FeatureMaps, FeatureSites, attention_distance
from qsci_plugins.training.loop import TrainResult, train_network
from qsci_plugins.training.selectors import set_widest, spread_selectors
from qsci_plugins.training.settings import CADyQTraining, LoopSettings

__all__ = ["selector_groups", "train_cadyq"]


def train_cadyq(
    network: QuantizedNetwork,
    pairs: PatchPairs,
    settings: CADyQTraining,
    sites: FeatureSites,
    folder: Path | None = None,
    *,
    device: str = "auto",
    on_step: Callable[[int, dict[str, float]], None] = lambda step, scalars: None,
    note: Callable[[str], None] = lambda text: None,
) -> TrainResult:
    """Trains a calibrated CADyQ network in place on `pairs`; the steps that it counts include the warm-up.

    `folder` is where warm_up.state and training.state are kept, from which an interrupted run goes on to the same weights.
    `on_step` gets loss, fab, psnr (RGB, of the batch) and l1; `note` hears where `compile` cannot be had.
    Raises UserError for a network without selectors or without calibration, and for a loss that is not finite.
    """
    if not network.calibrated():
        raise UserError("CADyQ's training needs a calibrated network; calibrate it first")
    selectors = [module for module in network.model.modules() if isinstance(module, BitSelector)]
    if not selectors:
        raise UserError("train.schedule: cadyq trains bit selectors, which this network has none of")
    was_training = network.model.training
    network.model.eval()
    try:
        phase = partial(_phase, network, pairs, settings, sites, folder, device, on_step, note)
        warm = phase(None, settings.warm_up, 0, "warm_up")
        if not warm.finished:
            return warm
        teacher = _teacher(network) if settings.has_teacher else None
        if settings.selector_start == "spread":
            spread_selectors(network, pairs, settings.seed)
        rest = phase(teacher, settings.steps, settings.warm_up, "training")
    finally:
        network.model.to(memory_format=torch.contiguous_format).train(was_training)  # type: ignore[call-overload]
    return TrainResult(rest.weights, settings.warm_up + rest.steps, warm.seconds + rest.seconds, rest.finished)


def selector_groups(network: QuantizedNetwork, settings: CADyQTraining, *, selectors: bool) -> list[dict[str, Any]]:
    """Adam's groups {params, lr}: weights, PAMS' maxima and, with `selectors`, each selector's W and b."""
    modules = list(network.model.modules())
    ranges = {id(m.alpha): m.alpha for m in modules if isinstance(m, SymmetricActivation)}
    mappings = {id(p): p for m in modules if isinstance(m, BitSelector) for p in (m.weight, m.bias)}
    rest = [p for p in network.model.parameters() if p.requires_grad and id(p) not in ranges and id(p) not in mappings]
    groups = _groups(rest, settings.learning_rate, settings.relative)
    groups += _groups(list(ranges.values()), settings.range_rate, settings.relative)
    if selectors:
        groups += _groups(list(mappings.values()), settings.selector_rate, settings.relative)
    return groups


def _groups(parameters: list[nn.Parameter], rate: float, relative: bool) -> list[dict[str, Any]]:
    if not relative:
        return [{"params": parameters, "lr": rate}] if parameters else []
    return [{"params": [p], "lr": rate * float(p.detach().abs().mean())} for p in parameters]


def _phase(
    network: QuantizedNetwork,
    pairs: PatchPairs,
    settings: CADyQTraining,
    sites: FeatureSites,
    folder: Path | None,
    device: str,
    on_step: Callable[[int, dict[str, float]], None],
    note: Callable[[str], None],
    teacher: nn.Module | None,
    steps: int,
    before: int,
    name: str,
) -> TrainResult:
    """Steps `before` to `before` + `steps` of the training; a warm-up where its name says so."""
    if not steps:
        return TrainResult({}, 0, 0.0, True)
    warming = name == "warm_up"
    student = _Student(network, teacher, sites, compared=not warming and settings.has_teacher)
    device = choose_device("cpu" if settings.cpu else device)
    if teacher is not None:
        teacher.to(device)
    loop = LoopSettings(
        steps=steps,
        learning_rate=1.0,
        warmup=0,
        halve_every=settings.halve_every,
        ema=settings.ema,
        precision=settings.precision,
        checkpoint_every=settings.checkpoint_every,
        keep_statistics=True,
        device=device,
        workers=settings.workers,
        compile=settings.compile,
    )

    def draw(step: int, rank: int, world: int) -> tuple[Tensor, Tensor, Tensor]:
        weight = torch.tensor(settings.bit_weight_at(step))
        return (*pairs.draw(settings.seed, before + step, settings.batch, rank, world), weight)

    set_widest(network.model, warming)
    try:
        result = train_network(
            student,
            lambda model, batch: _loss(model, batch, settings, warming),
            draw,
            loop,
            None if folder is None else folder / f"{name}.state",
            parameters=selector_groups(network, settings, selectors=not warming),
            on_step=lambda step, scalars: on_step(before + step, scalars),
            note=note,
        )
    finally:
        set_widest(network.model, False)
        student.close()
    if result.finished:
        weights = {key.removeprefix("model."): tensor for key, tensor in result.weights.items()}
        network.model.load_state_dict(weights)
    return result


class _Student(nn.Module):
    """The network and its teacher in one forward; Accelerate wraps this, and leaves the network's own forward alone."""

    def __init__(
        self, network: QuantizedNetwork, teacher: nn.Module | None, sites: FeatureSites, *, compared: bool
    ) -> None:
        super().__init__()
        self.model = network.model
        self._network = network
        self._gain = network.value_range / 255
        self._teacher = (teacher,)  # in a tuple, as it is no part of what is trained and saved
        self._maps = FeatureMaps(network.model, sites) if compared else None
        self._teacher_maps = FeatureMaps(teacher, sites) if compared and teacher is not None else None

    def forward(self, low: Tensor) -> dict[str, Any]:
        with record_bits() as ledger:
            result: dict[str, Any] = {"output": self.model(low * self._gain).float() / self._gain}
        counted = self._network.counted()
        result["fab"] = ledger.mean(counted).detach()
        result["bits"] = ledger.weighted_total(counted)
        teacher = self._teacher[0]
        if self._maps is not None and self._teacher_maps is not None and teacher is not None:
            result["maps"] = self._maps.take()
            with torch.no_grad():
                result["expected"] = teacher(low * self._gain).float() / self._gain
            result["expected_maps"] = self._teacher_maps.take()
        return result

    def close(self) -> None:
        for maps in (self._maps, self._teacher_maps):
            if maps is not None:
                maps.close()


def _loss(
    student: nn.Module, batch: tuple[Tensor, Tensor, Tensor], settings: CADyQTraining, warming: bool
) -> tuple[Tensor, dict[str, Tensor]]:
    low, high, bit_weight = batch
    got = student(low)
    output = got["output"]
    label = F.l1_loss(output, high)
    with torch.no_grad():
        error = F.mse_loss(output.clamp(0, 255), high).clamp_min(1e-6)
        scalars = {
            "l1": label,
            "psnr": 10 * torch.log10(255**2 / error),
            "fab": got["fab"].mean(),
        }
    if warming:
        return label, scalars
    loss = settings.label_weight * label + bit_weight * got["bits"].mean()
    if "maps" in got:
        (last, blocks), (last_expected, blocks_expected) = got["maps"], got["expected_maps"]
        if settings.output_weight:
            loss = loss + settings.output_weight * F.l1_loss(output, got["expected"])
        if last is not None:
            loss = loss + settings.feature_weight * attention_distance(last, last_expected)
        for mine, expected in zip(blocks, blocks_expected, strict=True):
            loss = loss + settings.block_weight * attention_distance(mine, expected)
    return loss, scalars


def _teacher(network: QuantizedNetwork) -> nn.Module:
    """The network as it is, its selectors at their widest, frozen."""
    teacher = copy.deepcopy(network.model).eval()
    set_widest(teacher, True)
    return teacher.requires_grad_(False)

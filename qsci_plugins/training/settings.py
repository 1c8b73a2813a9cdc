"""All settings of training: the sections that a recipe may have, and what the loop asks for."""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

__all__ = [
    "TAG",
    "CADyQTraining",
    "FineTuning",
    "FloatTraining",
    "Folder",
    "LabelledTraining",
    "LoopSettings",
    "Section",
    "Training",
    "TrainingPhase",
    "VideoTraining",
]

#: begins the tags that tell kinds of one section apart; pydantic puts them into the path of an error
TAG = "kind of "


class Section(BaseModel):
    """Unknown keys, wrong types ("4" for 4, 1 for true) and NaN are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Folder(Section):
    """Every `stride`-th image below `path` ($VARIABLES are expanded)."""

    path: str
    stride: int = Field(default=1, ge=1)


class Watched(Section):
    """What TensorBoard is to see of a training."""

    #: write scalars of every step and sample pictures every `picture_every` steps into tensorboard/
    tensorboard: bool = False
    picture_every: int = Field(default=500, ge=1)


@dataclass(frozen=True)
class LoopSettings:
    """How long and how fast `training.loop.train_network` trains.

    `learning_rate` rises linearly over `warmup` steps and then follows half a cosine to `final_fraction` of itself, or
    halves every `halve_every` steps. With `keep_statistics` the model trains in eval mode, so that normalisation layers
    keep theirs.
    `ema` is the decay of the averaged weights that the loop returns (0: none), `clip` the largest norm of the gradient
    (0: any). `device` is torch's name of one, or "auto": the GPU where there is one; `precision` "auto" is bf16 where
    the CPU or GPU computes in it, else float32. `workers` processes draw ahead (None: as many as suit the device);
    `compile` replays a step on a GPU as one CUDA graph.
    """

    steps: int
    learning_rate: float = 5e-4
    warmup: int = 100
    final_fraction: float = 0.02
    ema: float = 0.999
    precision: Literal["auto", "float32", "bf16", "fp16"] = "auto"
    clip: float = 0.0
    checkpoint_every: int = 200
    channels_last: bool = True
    device: str = "auto"
    halve_every: int = 0
    keep_statistics: bool = False
    workers: int | None = None
    compile: bool = False

    def rate_at(self, step: int) -> float:
        """The learning rate of a 0-based step."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        if self.halve_every:
            return self.learning_rate * 0.5 ** (step // self.halve_every)
        progress = (step - self.warmup) / max(1, self.steps - self.warmup)
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
        return self.learning_rate * (self.final_fraction + (1 - self.final_fraction) * cosine)


class Compiled(Watched):
    """What of a training may become one CUDA graph."""

    #: replay forward, loss and backward as one CUDA graph: small networks wait for Python otherwise. On a CPU, and for
    #: a network that decides anything while it runs, all stays as it is
    compile: bool = False


class Drawn(Compiled):
    """What a training on random examples may ask for besides."""

    #: processes that draw examples ahead; absent: up to 8 for a GPU, none on a CPU and for short trainings
    workers: int | None = Field(default=None, ge=0, le=64)
    #: train on the CPU although there is a GPU
    cpu: bool = False


class FineTuning(Compiled):
    """Distillation from the float network, without labels.

    `joint` trains weights and ranges together, its rates relative to each quantizer's step or range, on a cosine.

    `published` is AdaBM's procedure: turns of `turn` steps cycle through weight ranges, activation ranges and mappings
    (absolute rates), each of which multiplies its own rates by `decay` after its turn; its loss adds the distance of block
    outputs and, in the mapping turns, the mean bits above the base. `precision` "auto" is bf16 where the CPU or GPU has it.
    """

    steps: int = Field(default=200, ge=1, le=1_000_000)
    batch: int = Field(default=2, ge=1, le=1024)
    schedule: Literal["joint", "published"] = "joint"
    weight_rate: float = Field(default=0.01, ge=0)
    step_rate: float = Field(default=0.002, ge=0)
    range_rate: float = Field(default=0.003, ge=0)
    turn: int = Field(default=50, ge=1)
    decay: float = Field(default=0.9, gt=0, le=1)
    published_range_rate: float = Field(default=0.01, ge=0)
    published_image_rate: float = Field(default=0.1, ge=0)
    published_layer_rate: float = Field(default=0.01, ge=0)
    feature_weight: float = Field(default=10.0, ge=0)
    bit_weight: float = Field(default=50.0, ge=0)
    precision: Literal["auto", "float32", "bf16"] = "auto"
    checkpoint_every: int = Field(default=50, ge=1)
    seed: int = Field(default=0, ge=0)


class LabelledTraining(Drawn):
    """What every training on labels has: photos, patches of which are reduced to low resolution."""

    #: the scheme that it trains, and what of it
    trains: ClassVar[str | None] = None
    trained_parts: ClassVar[str] = ""

    #: high-resolution training images
    data: list[Folder] = Field(min_length=1)
    #: side of the low-resolution patches, in pixels
    patch: int = Field(default=48, ge=8, le=2048)


class CADyQTraining(LabelledTraining):
    """CADyQ's training on labels, its defaults as published.

    Loss = label_weight |SR - HR| + output_weight |SR - teacher| + w_bit sum_layers(bits / expected bits)
    + feature_weight D(last feature) + block_weight sum_blocks D(block), on images of 0..255, with D the squared difference
    of attention maps and w_bit = bit_weight + bit_growth * epoch, the first epoch being 1.

    Adam's rates are `learning_rate` for weights, `range_rate` for PAMS' maxima and `selector_rate` for the selectors, all
    halved every `halve_every` steps; with `relative` they are shares of each tensor's mean magnitude, which suits a network
    whose features are not of the published size. `warm_up` steps with every selector at
    its widest candidate come first, and the network as it is then is the teacher. `selector_start` "widest" is published;
    "spread" lets all candidates be chosen equally often at first, the wider ones by the more sensitive patches.
    """

    trains: ClassVar[str | None] = "cadyq"
    trained_parts: ClassVar[str] = "CADyQ's bit selectors"

    schedule: Literal["cadyq"]
    #: 300 epochs of 1000 steps
    steps: int = Field(default=300_000, ge=1)
    #: steps before, with 8 bits everywhere, for teacher and student alike
    warm_up: int = Field(default=30_000, ge=0)
    batch: int = Field(default=16, ge=1, le=1024)
    learning_rate: float = Field(default=1e-4, ge=0)
    range_rate: float = Field(default=1e-2, ge=0)
    selector_rate: float = Field(default=1e-4, ge=0)
    relative: bool = False
    selector_start: Literal["widest", "spread"] = "widest"
    halve_every: int = Field(default=150_000, ge=1)
    epoch: int = Field(default=1000, ge=1)
    label_weight: float = Field(default=1.0, ge=0)
    output_weight: float = Field(default=0.0, ge=0)
    bit_weight: float = Field(default=1e-4, ge=0)
    bit_growth: float = Field(default=1e-6, ge=0)
    feature_weight: float = Field(default=1e3, ge=0)
    block_weight: float = Field(default=1e2, ge=0)
    ema: float = Field(default=0.0, ge=0, lt=1)
    precision: Literal["auto", "float32", "bf16"] = "auto"
    checkpoint_every: int = Field(default=1000, ge=1)
    seed: int = Field(default=0, ge=0)

    @property
    def has_teacher(self) -> bool:
        """Whether the loss asks for one."""
        return any((self.output_weight, self.feature_weight, self.block_weight))

    def bit_weight_at(self, step: int) -> float:
        """w_bit of a 0-based step."""
        return self.bit_weight + self.bit_growth * (step // self.epoch + 1)


class FloatTraining(Drawn):
    """The L1 training of a float network on patches of images."""

    steps: int = Field(ge=1)
    batch: int = Field(default=16, ge=1)
    #: side of the low-resolution patches, in pixels
    patch: int = Field(default=48, ge=8, le=2048)
    learning_rate: float = Field(default=4e-4, gt=0)
    warmup: int = Field(default=100, ge=0)
    final_fraction: float = Field(default=0.02, ge=0, le=1)
    ema: float = Field(default=0.999, ge=0, lt=1)
    #: auto: bf16 where the CPU or GPU computes in it, else float32
    precision: Literal["auto", "float32", "bf16", "fp16"] = "auto"
    #: largest norm of the gradient; 0: any
    clip: float = Field(default=0.0, ge=0)
    checkpoint_every: int = Field(default=200, ge=1)
    channels_last: bool = True

    def loop(self, device: str = "auto") -> LoopSettings:
        """What of it the loop asks for."""
        own = self.model_dump(exclude={"batch", "patch", "tensorboard", "picture_every", "cpu"})
        return LoopSettings(**own, device="cpu" if self.cpu else device)


class TrainingPhase(Section):
    """`steps` steps on clips of `crop` x `crop` pixels; the rate goes on half a cosine to `final_rate` (absent: stays).

    `frames` takes the first so many of the mask (absent: all): few frames are cheap, and easy to tell apart.
    """

    crop: int = Field(ge=8, le=2048)
    frames: int | None = Field(default=None, ge=1, le=64)
    steps: int = Field(ge=1, le=100_000_000)
    rate: float = Field(gt=0)
    final_rate: float | None = Field(default=None, ge=0)

    def rate_at(self, progress: float) -> float:
        """The rate where a share of 0..1 of the cosine is behind."""
        final = self.rate if self.final_rate is None else self.final_rate
        return final + (self.rate - final) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


class VideoTraining(Drawn):
    """Training with Adam towards the frames themselves, float and quantized networks alike."""

    phases: list[TrainingPhase] = Field(min_length=1)
    #: clips of a step, of all processes together
    batch: int = Field(default=4, ge=1)
    loss: Literal["mse", "rmse"] = "rmse"
    #: steps in which the first phase's rate rises
    warmup: int = Field(default=0, ge=0)
    ema: float = Field(default=0.0, ge=0, lt=1)
    #: auto: bf16 on a GPU that computes in it, else float32
    precision: Literal["auto", "float32", "bf16", "fp16"] = "auto"
    #: largest norm of the gradient; 0: any
    clip: float = Field(default=0.0, ge=0)
    #: of quantized networks: by how many times the rate a quantization step moves, relative to its size
    quantizer_rate: float = Field(default=4.0, ge=0)
    checkpoint_every: int = Field(default=200, ge=1)
    #: keep only the blocks' inputs for the backward pass: less memory, a third more time
    gradient_checkpointing: bool = False
    channels_last: bool = True

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
        begin = sum(earlier.steps for earlier in self.phases[:index])
        end = begin + phase.steps
        if index == 0:
            if step < self.warmup:
                return phase.rate * (step + 1) / self.warmup
            begin = min(self.warmup, phase.steps - 1)
        return phase.rate_at((step - begin) / (end - begin))


def _kind_of_training(value: Any) -> str:
    """The tag of a section, also of one whose schedule is misspelt: only CADyQ's has `data`."""
    if isinstance(value, dict):
        labelled = value.get("schedule") == "cadyq" or "data" in value
    else:
        labelled = isinstance(value, CADyQTraining)
    return f"{TAG}{'cadyq' if labelled else 'fine_tuning'}"


Training = Annotated[
    Annotated[FineTuning, Tag(f"{TAG}fine_tuning")] | Annotated[CADyQTraining, Tag(f"{TAG}cadyq")],
    Discriminator(_kind_of_training),
]

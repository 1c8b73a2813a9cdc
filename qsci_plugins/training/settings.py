"""What a recipe may say about training: fine-tuning without labels, CADyQ's on labels, and that of a float network."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

__all__ = ["TAG", "CADyQTraining", "FineTuning", "FloatTraining", "Folder", "Section", "Training"]

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


class FineTuning(Watched):
    """Distillation from the float network; the names, defaults and meanings of `training.finetune.FinetuneSettings`."""

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


class CADyQTraining(Watched):
    """CADyQ's training on labels; the names and meanings of `training.cadyq.CADyQSettings`, its defaults as published."""

    schedule: Literal["cadyq"]
    #: high-resolution training images
    data: list[Folder] = Field(min_length=1)
    #: 300 epochs of 1000 steps
    steps: int = Field(default=300_000, ge=1)
    #: steps before, with 8 bits everywhere, for teacher and student alike
    warm_up: int = Field(default=30_000, ge=0)
    batch: int = Field(default=16, ge=1, le=1024)
    #: side of the low-resolution patches, in pixels
    patch: int = Field(default=48, ge=8, le=2048)
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
    #: train on the CPU although there is a GPU
    cpu: bool = False
    seed: int = Field(default=0, ge=0)


class FloatTraining(Watched):
    """The L1 training of a float network; `training.loop.LoopSettings` has the same names."""

    steps: int = Field(ge=1)
    batch: int = Field(default=16, ge=1)
    #: side of the low-resolution patches, in pixels
    patch: int = Field(default=48, ge=8, le=2048)
    learning_rate: float = Field(default=4e-4, gt=0)
    warmup: int = Field(default=100, ge=0)
    final_fraction: float = Field(default=0.02, ge=0, le=1)
    ema: float = Field(default=0.999, ge=0, lt=1)
    precision: Literal["float32", "bf16", "fp16"] = "float32"
    #: largest norm of the gradient; 0: any
    clip: float = Field(default=0.0, ge=0)
    checkpoint_every: int = Field(default=200, ge=1)
    channels_last: bool = True
    #: train on the CPU although there is a GPU
    cpu: bool = False


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

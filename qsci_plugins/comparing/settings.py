"""What each comparison is asked to do; light to import, as the command line builds its options from these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = [
    "ROWS",
    "BenchSettings",
    "BenchmarkSettings",
    "CostSettings",
    "EvaluateSettings",
    "MeasuringSettings",
    "QuantizeSettings",
    "SetChoice",
    "SweepSettings",
]


#: names of the rows that a bench may have, in their order; which of them depends on the model and the machine
ROWS = ("fp32", "bf16", "nncf_int8", "static_int8", "onnxruntime", "torch", "ours", "skipping", "routed")


@dataclass(frozen=True, kw_only=True)
class SetChoice:
    """Which benchmark sets: for images folders of `data` in EDSR's layout, for video folders of .mat files or clips.

    `sets` are `builtin`, names in `data`, or paths of folders; None leaves the choice to the command.
    """

    data: Path | None = None
    sets: Sequence[str] | None = None


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings(SetChoice):
    """`run` is an output of `qsci run`, or the model folder in it."""

    run: Path
    #: where torch computes; None: on the GPU where there is one
    device: str | None = None


@dataclass(frozen=True, kw_only=True)
class MeasuringSettings(SetChoice):
    """`output` has the runs, the log and the result; `jobs` processes measure (None: one per core), here or, with `cluster`
    ("local", "auto" or "HOST:PORT"), on Ray."""

    output: Path
    overrides: Sequence[str] = ()
    jobs: int | None = None
    cluster: str | None = None
    #: NNCF's default INT8 of every network as well
    baseline: bool = False
    #: where torch runs recipes and measures; None: where each recipe says
    device: str | None = None


@dataclass(frozen=True, kw_only=True)
class BenchmarkSettings(MeasuringSettings):
    """`targets` are recipe files, names of shipped recipes, or outputs of `qsci run`."""

    targets: Sequence[str | Path]
    output: Path = Path("benchmark")


@dataclass(frozen=True, kw_only=True)
class SweepSettings(MeasuringSettings):
    """`values` are those of every key, such as {"scheme.activation_bits": [4, 6, 8]}."""

    recipe: str | Path
    values: Mapping[str, Sequence[Any]]
    one_at_a_time: bool = False


@dataclass(frozen=True, kw_only=True)
class BenchSettings(SetChoice):
    """`models` are outputs of `qsci run`, or model folders; `threads` None: all that this process may use."""

    models: Sequence[Path]
    repeats: int = 20
    threads: int | None = None
    #: names of rows, of ROWS; None for all
    only: Sequence[str] | None = None
    #: seconds that a row's making, first inference and timed runs may take each; None for any
    limit: float | None = None
    #: (width, height) of an image to time in tiles and in one piece instead
    tiled: tuple[int, int] | None = None


@dataclass(frozen=True, kw_only=True)
class QuantizeSettings:
    """`weights` is the file of a network that enlarges or restores images; `output` the folder of its run."""

    weights: Path
    output: Path
    #: a folder of what the network is given, to calibrate and to measure on; None: the built-in photos
    images: Path | None = None
    #: a set of images in EDSR's layout, or a folder of high-resolution ones
    truth: Path | None = None
    #: 8, 6 or 4 for weights and activations, or auto: the fewest that keep `max_loss`
    bits: str = "8"
    #: dB; None: whatever it is, and 0.1 for auto bits
    max_loss: float | None = None
    backend: str = "nncf"
    scale: int | None = None
    seed: int = 0
    #: where torch computes; None: on the GPU where there is one
    device: str | None = None
    force: bool = False


@dataclass(frozen=True, kw_only=True)
class CostSettings:
    """`schemes` None: every one that a recipe can name. `pairs` steps of each, float and quantized by turns."""

    schemes: Sequence[str] | None = None
    backends: Sequence[str] = ("nncf", "brevitas")
    form: str = "integer"
    pairs: int = 10
    threads: int = 2
    #: where torch computes; None: on the GPU where there is one
    device: str | None = None
    #: of the EDSR x2 that is measured
    blocks: int = 8
    width: int = 64

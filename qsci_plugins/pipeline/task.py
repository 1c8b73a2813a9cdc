"""What differs between enlarging images and reconstructing video: all that `run` and `comparing` ask about it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from qsci_plugins.architectures.network import Network
from qsci_plugins.errors import UserError
from qsci_plugins.progress import Progress
from qsci_plugins.schemes.placement import Placement
from qsci_plugins.schemes.scheme import QuantizedNetwork, Scheme

if TYPE_CHECKING:  # a float training needs none of these
    import openvino

    from qsci_plugins.evaluation.baselines import Sample
    from qsci_plugins.evaluation.bit_meter import BitMeter
    from qsci_plugins.openvino.signature import Signature
    from qsci_plugins.pipeline.metrics import Journal
    from qsci_plugins.recipes.reading import AnyRecipe
    from qsci_plugins.training.loop import TrainResult

__all__ = [
    "Form",
    "Loaded",
    "Macs",
    "PieceResult",
    "PieceSet",
    "Prepared",
    "Shape",
    "Task",
    "Trainable",
    "task_named",
    "task_of",
]

Kind = TypeVar("Kind", bound="AnyRecipe")


class Shape(Protocol):
    """What goes into a network and comes out; `Loaded` says it, and the manifest of a model folder.

    `frames` is how many a measurement has, None for images.
    """

    @property
    def scale(self) -> int: ...
    @property
    def channels(self) -> int: ...
    @property
    def frames(self) -> int | None: ...


@dataclass(frozen=True)
class Loaded:
    """A recipe and its networks."""

    recipe: Any
    #: the stock network
    float_network: Network
    #: what is to be quantized or trained: the stock network, with shortcuts where the recipe adds some
    network: Network
    #: in a measurement; None for images
    frames: int | None = None
    #: where torch computes: "cpu" or "cuda:N"
    device: str = field(default="cpu", kw_only=True)

    @property
    def scale(self) -> int:
        """How much the network enlarges."""
        return self.float_network.scale

    @property
    def channels(self) -> int:
        """Of the network's pictures."""
        return self.float_network.channels


@dataclass(frozen=True)
class Macs:
    """Multiply-accumulates by layer, of the stock network and of the one to quantize, on an `input` of ([frames,] height,
    width)."""

    input: list[int]
    float_network: Mapping[str, int]
    network: Mapping[str, int]


@dataclass(frozen=True)
class PieceSet:
    """A benchmark set: `pieces` are the smallest things that are scored, images or scenes."""

    name: str
    pieces: Sequence[Any]


@dataclass(frozen=True)
class PieceResult:
    """PSNR in dB (of an image on Y, of a scene on its frames; infinite for equal images), SSIM (None where the piece is
    smaller than its window), FAB in bits (None where the form does not tell), and what else there is to say."""

    name: str
    psnr: float
    ssim: float | None
    fab: float | None = None
    extras: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Trainable(Loaded):
    """A network, the sets to measure it on, and what it learns from: pairs of patches, clips of every phase, or None."""

    sets: Sequence[PieceSet] = ()
    examples: Any = None


@dataclass(frozen=True)
class Prepared(Trainable):
    """A quantization recipe whose every part was found and fits together.

    `batches` to calibrate on are (N,3,h,w) in 0..value_range, or (measurement, mask, mask_sum).
    """

    scheme: Scheme = field(kw_only=True)
    placement: Placement = field(kw_only=True)
    batches: list[Any] = field(kw_only=True)
    #: context around the tiles of the exported network, in pixels of its input
    overlap: int = field(kw_only=True)
    #: what the places of its tiles are multiples of
    period: int = field(default=1, kw_only=True)


class Form(Protocol):
    """A way to run a network: float, quantized in torch, exported, somebody else's; only its task knows how it is run."""

    @property
    def summary(self) -> Callable[[], Mapping[str, Any]] | None:
        """What there is to say about a whole set, once it went by."""
        ...


class Task(Protocol):
    """Images (`image_task.ImageTask`) or video (`video_task.VideoTask`); `task_of(recipe)` tells which.

    Pieces and forms are the task's own; whoever got them from it hands them back to it.
    """

    #: of networks and manifests: "sr" or "sci"
    name: str

    def resolve(self, recipe: Kind) -> Kind:
        """The same quantization recipe with absolute paths, which means the same from any working folder."""
        ...

    def load(self, recipe: Any) -> Loaded:
        """The network alone. Raises UserError, as for a network of the other task."""
        ...

    def prepare(self, recipe: Any, data: Path | None, progress: Progress) -> Prepared:
        """Loads the network, calibration inputs, examples to train on and sets, and tries the network out.

        Raises UserError for whatever does not fit.
        """
        ...

    def prepare_training(self, recipe: Any, data: Path | None, progress: Progress) -> Trainable:
        """`prepare` for the training of a float network."""
        ...

    def sets(
        self, benchmarks: Sequence[Any], shape: Shape, data: Path | None, names: Sequence[str] | None = None
    ) -> list[PieceSet]:
        """The sets of a recipe's `evaluate` and what the folder `data` adds; with `names`, exactly those.

        Raises UserError for a set that is not there, or does not suit a network of this shape.
        """
        ...

    def train(
        self, prepared: Prepared, quantized: QuantizedNetwork, work: Path, journal: Journal, progress: Progress
    ) -> None:
        """The recipe's `train`, if any, in place; Ctrl-C keeps the state in `work` and raises KeyboardInterrupt."""
        ...

    def train_float(self, trainable: Trainable, work: Path, journal: Journal, progress: Progress) -> TrainResult:
        """The whole training of a float network, as `train` otherwise; its weights are in the result."""
        ...

    def signature(self, loaded: Loaded) -> Signature:
        """What the exported graph takes and gives."""
        ...

    def meter(self, loaded: Loaded, quantized: QuantizedNetwork) -> BitMeter:
        """What notes the bits of the quantized network while the form `torch` runs it."""
        ...

    def forms(self, loaded: Loaded, meter: BitMeter | None, model: Path | None) -> dict[str, Any]:
        """`float`, with a meter `torch` (the quantized network that it watches) and with a model folder `openvino`."""
        ...

    def exported(self, model: Path, threads: int | None = None) -> Any:
        """The form of a model folder, run by its runtime."""
        ...

    def score(self, form: Any, piece: Any) -> PieceResult:
        """One piece through one form."""
        ...

    def content(self, piece: Any) -> Iterator[Any]:
        """All that decides a piece's score but the form: files, arrays and plain values."""
        ...

    def macs(self, loaded: Loaded) -> Macs:
        """Multiply-accumulates at the papers' size; counting takes seconds, and pricing them nothing."""
        ...

    def operations(self, macs: Macs, quantized: QuantizedNetwork, meter: BitMeter) -> dict[str, Any]:
        """Every named count of operations at the papers' size, float and quantized at the bits that the meter saw."""
        ...

    def float_graph(self, loaded: Loaded) -> openvino.Model:
        """The float network as everybody exports it, of the size of the recipe's tile."""
        ...

    def samples(self, prepared: Prepared, *, every: bool = False) -> list[Sample]:
        """A few (or `every`) calibration inputs of the size of the recipe's tile, for `float_graph` to be quantized with."""
        ...


def task_of(recipe: AnyRecipe) -> Task:
    """The task of a recipe of any kind."""
    from qsci_plugins.recipes.schema import FloatVideoRecipe, VideoRecipe

    return task_named("sci" if isinstance(recipe, VideoRecipe | FloatVideoRecipe) else "sr")


def task_named(name: str) -> Task:
    """The task of a network or a manifest that calls it so. Raises UserError for another name."""
    if name == "sr":
        from qsci_plugins.pipeline.image_task import ImageTask

        return ImageTask()
    if name == "sci":
        from qsci_plugins.pipeline.video_task import VideoTask

        return VideoTask()
    raise UserError(f"there is no task {name!r}; there are sr (images) and sci (video)")

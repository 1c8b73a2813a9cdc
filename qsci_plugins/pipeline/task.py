"""What differs between enlarging images and reconstructing video: all that `run` and `comparing` ask about it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from torch import Tensor

from qsci_plugins.architectures.network import Network
from qsci_plugins.openvino.signature import Signature
from qsci_plugins.progress import Progress
from qsci_plugins.schemes.placement import Placement
from qsci_plugins.schemes.scheme import QuantizedNetwork, Scheme

__all__ = ["PieceResult", "PieceSet", "Prepared", "Task"]

Piece = TypeVar("Piece")
Form = TypeVar("Form")
Recipe = TypeVar("Recipe")


@dataclass(frozen=True)
class PieceSet(Generic[Piece]):
    """A benchmark set: `pieces` are the smallest things that are scored, images or scenes."""

    name: str
    pieces: Sequence[Piece]


@dataclass(frozen=True)
class PieceResult:
    """PSNR in dB (of an image on Y, of a scene on its frames), SSIM (None where it is too small for the window), extras
    such as `fab`."""

    name: str
    psnr: float
    ssim: float | None
    extras: Mapping[str, Any] = field(default_factory=dict)


class Prepared(Protocol):
    """A recipe whose every part was found and fits together."""

    @property
    def recipe(self) -> Any: ...
    @property
    def float_network(self) -> Network:
        """The stock network."""
        ...

    @property
    def network(self) -> Network:
        """The one to quantize: the stock network, with shortcuts where the recipe adds some."""
        ...

    @property
    def scheme(self) -> Scheme: ...
    @property
    def placement(self) -> Placement: ...
    @property
    def batches(self) -> Sequence[Tensor | Sequence[Tensor]]: ...
    @property
    def sets(self) -> Sequence[PieceSet[Any]]: ...
    @property
    def overlap(self) -> int:
        """Context around the tiles of the exported network, in pixels of its input."""
        ...


class Task(Protocol, Generic[Recipe, Piece, Form]):
    """Images (`image_task.IMAGES`) or video (`video_task.VIDEO`); `task_of(recipe)` tells which.

    A form is a way to run a network: float, quantized in torch, exported, somebody else's.
    """

    def resolve(self, recipe: Recipe) -> Recipe:
        """The same recipe with absolute paths."""
        ...

    def prepare(self, recipe: Recipe, data: Path | None, progress: Progress) -> Prepared:
        """Loads the network, calibration inputs and sets, and tries the network out. Raises UserError."""
        ...

    def sets(self, recipe: Recipe, data: Path | None, names: Sequence[str] | None) -> list[PieceSet[Piece]]:
        """The sets of the recipe's `evaluate`, or those that `names` chooses in `data`."""
        ...

    def train(self, prepared: Prepared, quantized: QuantizedNetwork, work: Path, progress: Progress) -> None:
        """The recipe's `train`, in place; Ctrl-C keeps the state in `work` and raises KeyboardInterrupt."""
        ...

    def signature(self, prepared: Prepared) -> Signature:
        """What the exported graph takes and gives."""
        ...

    def forms(self, prepared: Prepared, quantized: QuantizedNetwork, model: Path | None) -> dict[str, Form]:
        """`float`, `torch` and, where there is a model folder, `openvino`."""
        ...

    def score(self, form: Form, piece: Piece) -> PieceResult:
        """One piece through one form."""
        ...

    def operations(self, prepared: Prepared, quantized: QuantizedNetwork, meter: Any) -> dict[str, Any]:
        """Every named count of operations at the papers' size, float and quantized."""
        ...


#: called with what a run made and its folder
Report = Callable[[Any, Path], None]

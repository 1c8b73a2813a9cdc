"""What NNCF and Brevitas do for a scheme, in the same words."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

from torch import Tensor, nn

from qsci_plugins.errors import UserError
from qsci_plugins.progress import quiet
from qsci_plugins.schemes.placement import Placement
from qsci_plugins.schemes.scheme import QuantizedNetwork, Scheme

__all__ = ["BACKENDS", "Backend", "load_backend"]

#: what a recipe's `backend` may be, and the module that does it
BACKENDS = {"brevitas": "qsci_plugins.brevitas.backend", "nncf": "qsci_plugins.nncf.backend"}


class Backend(Protocol):
    """A framework that puts quantizers into networks; a module with these functions is one.

    An input is (N,C,H,W) in 0..value_range, or the sequence of all tensors that a network takes.
    """

    def apply(
        self,
        model: nn.Module,
        scheme: Scheme,
        placement: Placement,
        example: Tensor | Sequence[Tensor],
        value_range: float,
    ) -> QuantizedNetwork:
        """A copy of a stock network with a scheme's quantizers, not calibrated.

        `example` is an input that the network accepts. Raises UserError where the network or the placement does not fit.
        """
        ...

    def quantize(
        self,
        model: nn.Module,
        scheme: Scheme,
        placement: Placement,
        batches: Sequence[Tensor | Sequence[Tensor]],
        value_range: float,
    ) -> QuantizedNetwork:
        """A quantized copy of a stock network, calibrated on `batches` of inputs. Raises UserError where they do not fit."""
        ...

    def save(self, quantized: QuantizedNetwork, file: Path | str) -> None:
        """Writes a calibrated network into one file. Raises UserError before calibration and where writing fails."""
        ...

    def load(self, model: nn.Module, file: Path | str) -> QuantizedNetwork:
        """The network that `save` wrote, in a copy of the same stock network. Raises UserError for any other file."""
        ...


def load_backend(name: str) -> Backend:
    """The backend of a name in `BACKENDS`, imported with its framework. Raises UserError for another name."""
    if name not in BACKENDS:
        raise UserError(f"backend: there is no {name!r}; choose {' or '.join(BACKENDS)}")
    # a name instead of an import statement: a backend stands on the schemes, and brings seconds of imports
    with quiet():
        return cast(Backend, import_module(BACKENDS[name]))

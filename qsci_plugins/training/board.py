"""Scalars and pictures of a training for TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from qsci_plugins.errors import UserError

__all__ = ["Board"]


class Board:
    """Writes event files into `folder`; steps after `begin` that an interrupted run had written are replaced.

    Raises UserError where the tensorboard package is not installed.
    """

    def __init__(self, folder: Path, begin: int = 0) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise UserError(
                "train.tensorboard needs the tensorboard package: pip install 'qsci-plugins[tensorboard]'"
            ) from error
        self._writer: Any = SummaryWriter(str(folder), purge_step=begin or None)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """One point on each of the named curves."""
        for name, value in values.items():
            self._writer.add_scalar(f"train/{name}", value, step)

    def picture(self, step: int, picture: Tensor) -> None:
        """What the network makes now above what it should make: (1 or 3,h,w) in 0..1."""
        self._writer.add_image("reconstruction above original", picture, step)

    def close(self) -> None:
        """Writes what is still in memory."""
        self._writer.close()

"""The settings of `qsci reconstruct` besides its files, for scenes and raw measurements alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qsci_plugins.data.frame_writers import FORMATS
from qsci_plugins.data.snapshot_files import KEYS, read_mask
from qsci_plugins.errors import UserError

if TYPE_CHECKING:
    from qsci_plugins.openvino.precisions import Precision
    from qsci_plugins.pipeline.networks import Runtime, VideoNetwork

__all__ = ["ReconstructSettings"]


@dataclass(frozen=True)
class ReconstructSettings:
    """The options of `reconstruct` and `reconstruct_raw`; each takes them as keywords too.

    `mask`: the camera's, a file or (T,H,W) of 0..1, instead of those beside the measurements. `keys`: other names of
    `meas`, `mask` and `frames` in files. `white`: full brightness of one frame in the measurements. `format` and `rate`
    (frames per second): what is written for a scene. `runtime` and `architecture` are `open_network`'s; `threads`, and
    for an exported network `streams`, `cache_dir` and `precision`, `Reconstructor`'s. `force`: replace existing files.
    Raises UserError for a value that cannot be.
    """

    mask: str | Path | np.ndarray | None = None
    keys: Mapping[str, str] | None = None
    format: str = "png"
    rate: float = 10.0
    white: float | None = None
    runtime: Runtime = "auto"
    architecture: str | None = None
    threads: int | None = None
    streams: int | None = None
    cache_dir: str | Path | None = None
    precision: Precision = "auto"
    force: bool = False

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise UserError(f"there is no format {self.format!r}; known: {', '.join(FORMATS)}")
        if not 0.1 <= self.rate <= 1000:
            raise UserError(f"--rate {self.rate:g}: give 0.1 to 1000 frames per second")
        if self.white is not None and not 1e-9 <= self.white <= 1e9:
            raise UserError(
                f"--white {self.white:g}: full brightness is 1e-9 to 1e9; leave it out to have it estimated from the measurement"
            )
        if unknown := sorted(set(self.keys or {}) - set(KEYS)):
            raise UserError(f"--keys {unknown[0]}=...: what may have another name is {', '.join(KEYS)}")

    def changed(self, options: dict[str, Any]) -> ReconstructSettings:
        """These settings with some options replaced; TypeError for one that does not exist."""
        known = self.__dataclass_fields__
        if unknown := sorted(set(options) - set(known)):
            raise TypeError(f"unexpected keyword argument {unknown[0]!r}; options are {', '.join(known)}")
        return ReconstructSettings(**{**self.__dict__, **options})

    def network(self, model: str | Path) -> VideoNetwork:
        """The network that `model` holds. Raises UserError where there is none."""
        from qsci_plugins.pipeline.networks import open_network

        exported = {"streams": self.streams, "cache_dir": self.cache_dir, "precision": self.precision}
        return open_network(model, self.runtime, self.architecture, self.threads, **exported)

    def camera_mask(self, frames: int | None) -> np.ndarray | None:
        """The mask (T,H,W) that was given, for a network of so many frames; None where none was."""
        if isinstance(self.mask, str | Path):
            return read_mask(self.mask, self.keys, frames)
        return self.mask

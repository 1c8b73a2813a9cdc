"""Reconstructed frames as PNG sequences, mp4, GIF and .mat files, which appear complete or not at all."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from qsci_plugins.data.images import write_image
from qsci_plugins.errors import UserError
from qsci_plugins.extras import naming_extras
from qsci_plugins.files import replacing

__all__ = ["FORMATS", "FrameWriter", "frame_writer", "to_levels"]

#: written while frames come, in constant memory: png and mp4; kept until the end: gif (8 bits) and mat (float32)
FORMATS = ("png", "mp4", "gif", "mat")

#: what a frame of a PNG sequence is called; other pictures in its folder are somebody else's
_FRAME_NAME = re.compile(r"\d{5,}\.png")


def to_levels(frames: np.ndarray) -> np.ndarray:
    """Frames (T,H,W) in 0..1 as uint8 (T,H,W), or RGB (3,T,H,W) as (T,H,W,3); clamped and rounded."""
    levels = np.rint(np.clip(frames, 0, 1) * 255).astype(np.uint8)
    return levels if levels.ndim == 3 else levels.transpose(1, 2, 3, 0)


class FrameWriter(ABC):
    """A context manager that takes frames (T,H,W) or (3,T,H,W) in 0..1, measurement by measurement."""

    def __init__(self, target: Path) -> None:
        self.target = target

    @abstractmethod
    def write(self, frames: np.ndarray) -> None:
        """Adds the frames of the next measurement."""

    @abstractmethod
    def close(self, complete: bool) -> None:
        """Finishes the file, or removes what there is of it."""

    def __enter__(self) -> FrameWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(kind is None)


def frame_writer(
    target: Path, format_: str, rate: float = 10.0, extras: Callable[[], Mapping[str, Any]] = dict
) -> FrameWriter:
    """Writes `target`: for png a folder with 00001.png and on, else the file `target`.`format_`.

    `rate` is of mp4 and GIF in frames per second; `extras` are further variables of a .mat file, asked for at its end, whose
    `recon` is float32 (H,W,F), or (H,W,3,F), in 0..1. Raises UserError where writing fails.
    """
    if format_ == "png":
        return _Pictures(target)
    file = target.with_name(f"{target.name}.{format_}")
    if format_ == "mp4":
        return _Video(file, rate)
    return _Kept(file, rate, extras)


class _Pictures(FrameWriter):
    def __init__(self, target: Path) -> None:
        super().__init__(target)
        self._written: list[Path] = []

    def write(self, frames: np.ndarray) -> None:
        try:
            self.target.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot make the folder {self.target}: {error.strerror}") from error
        for frame in to_levels(frames):
            file = self.target / f"{len(self._written) + 1:05}.png"
            write_image(file, frame)
            self._written.append(file)

    def close(self, complete: bool) -> None:
        if complete:
            for file in self.target.glob("*.png"):  # of an earlier, longer sequence
                if _FRAME_NAME.fullmatch(file.name) and file not in self._written:
                    file.unlink()


class _Video(FrameWriter):
    def __init__(self, target: Path, rate: float) -> None:
        super().__init__(target)
        with naming_extras():
            from qsci_plugins.data.video.writing import VideoWriter

        self._writer = VideoWriter(target, Fraction(rate).limit_denominator(1000))

    def write(self, frames: np.ndarray) -> None:
        for frame in to_levels(frames):
            self._writer.write(frame if frame.ndim == 3 else frame[..., None].repeat(3, 2))

    def close(self, complete: bool) -> None:
        failure = None if complete else RuntimeError
        self._writer.__exit__(failure, None, None)


class _Kept(FrameWriter):
    """GIF and .mat, which are written at once."""

    def __init__(self, target: Path, rate: float, extras: Callable[[], Mapping[str, Any]]) -> None:
        super().__init__(target)
        if target.suffix == ".mat":
            with naming_extras():  # now: frames that cannot be saved need not be made
                import scipy.io  # noqa: F401
        self._rate = rate
        self._extras = extras
        self._frames: list[np.ndarray] = []

    def write(self, frames: np.ndarray) -> None:
        self._frames.append(frames.astype(np.float32) if self.target.suffix == ".mat" else to_levels(frames))

    def close(self, complete: bool) -> None:
        if not complete or not self._frames:
            return
        try:
            with replacing(self.target) as temporary:
                if self.target.suffix == ".mat":
                    self._save_mat(temporary)
                else:
                    self._save_gif(temporary)
        except ValueError as error:  # more than the format holds
            raise UserError(f"cannot write {self.target}: {error}") from error

    def _save_mat(self, file: Path) -> None:
        from scipy.io import savemat

        frames = np.concatenate(self._frames, axis=-3)
        order = (1, 2, 0) if frames.ndim == 3 else (2, 3, 0, 1)
        with file.open("wb") as stream:
            savemat(stream, {"recon": frames.transpose(order), **self._extras()}, do_compression=True)

    def _save_gif(self, file: Path) -> None:
        from PIL import Image

        pictures = [Image.fromarray(frame) for frames in self._frames for frame in frames]
        duration = round(1000 / self._rate)
        pictures[0].save(file, "GIF", save_all=True, append_images=pictures[1:], duration=duration, loop=0)

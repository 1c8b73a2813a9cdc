"""Sequences of video frames from folders (DAVIS layout) and video files, whole and in 8 bits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from qsci_plugins.data.degradation import imresize
from qsci_plugins.data.folders import IMAGE_FORMATS, VIDEO_FORMATS, is_image
from qsci_plugins.data.images import read_image
from qsci_plugins.errors import UserError
from qsci_plugins.extras import naming_extras

__all__ = ["VIDEO_SUFFIXES", "frames_of", "grey", "read_sequence", "sequences"]

#: the files in a folder that are taken for videos
VIDEO_SUFFIXES = tuple(suffix for suffix in VIDEO_FORMATS if suffix != ".gif")


def grey(frame: np.ndarray) -> np.ndarray:
    """The luma of ITU-R BT.601 in full range, as the SCI networks were trained on: uint8 (...,3) becomes (...)."""
    red, green, blue = (frame[..., channel].astype(np.uint32) for channel in range(3))
    return ((299 * red + 587 * green + 114 * blue + 500) // 1000).astype(np.uint8)


def sequences(folder: Path) -> list[Path]:
    """The sequences at or below `folder`, sorted: folders that hold images themselves, and video files.

    Raises UserError where the folder is missing or holds neither.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; sequences are folders of frames and video files in a folder")
    found: set[Path] = set()
    for file in folder.rglob("*"):
        if is_image(file):
            found.add(file.parent)
        elif file.suffix.lower() in VIDEO_SUFFIXES and not file.name.startswith("."):
            found.add(file)
    if not found:
        raise UserError(
            f"no sequence in {folder}; it should hold folders of frames ({', '.join(sorted(IMAGE_FORMATS))}) or"
            f" videos ({', '.join(VIDEO_SUFFIXES)})"
        )
    return sorted(found)


def read_sequence(
    path: Path,
    *,
    color: bool = False,
    downsize: int = 1,
    limit: int | None = None,
    on_frame: Callable[[], None] = lambda: None,
) -> np.ndarray:
    """All frames (the first `limit`) of a folder or video file: uint8 (F,H,W), or RGB (F,H,W,3) with `color`.

    `downsize` reduces both sides (MATLAB's bicubic), memory by its square. Raises UserError for a path that holds no
    frames and for frames of different sizes.
    """
    frames: list[np.ndarray] = []
    for frame in frames_of(path):
        frame = frame if color else grey(frame)
        if downsize > 1:
            frame = imresize(frame, 1 / downsize)
        if frames and frame.shape != frames[0].shape:
            (height, width), (first, second) = frame.shape[:2], frames[0].shape[:2]
            raise UserError(
                f"{path}: frame {len(frames) + 1} is {width}x{height} pixels, the first one {second}x{first};"
                " one folder is one sequence"
            )
        frames.append(frame)
        on_frame()
        if len(frames) == limit:
            break
    if not frames:
        raise UserError(f"{path} holds no frames")
    return np.stack(frames)


def frames_of(path: Path) -> Iterator[np.ndarray]:
    """The frames of a folder or video file, uint8 RGB (H,W,3), one at a time."""
    if path.is_dir():
        for file in sorted(path.iterdir()):
            if is_image(file):
                yield read_image(file)
        return
    with naming_extras():
        from qsci_plugins.data.video.reading import VideoReader

    reader = VideoReader(path)
    try:
        yield from reader
    finally:
        reader.close()

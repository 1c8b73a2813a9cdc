"""A moving scene made by code from the built-in photos, so that SCI networks can be tried without any data."""

from __future__ import annotations

from typing import Literal

import numpy as np

from qsci_plugins.data.degradation import imresize
from qsci_plugins.data.photos import builtin_photos
from qsci_plugins.data.sequences import grey

__all__ = ["synthetic_scene"]


def synthetic_scene(
    frames: int = 8,
    height: int = 256,
    width: int = 256,
    seed: int = 0,
    *,
    color: bool = False,
    part: Literal["calibration", "evaluation"] = "evaluation",
) -> np.ndarray:
    """uint8 (frames,height,width), or RGB (frames,height,width,3): the same scene for the same arguments.

    The camera pans over one of the built-in photos by up to two pixels a frame, and three discs with pieces of others in
    them fly over it, by up to five. Scenes of the two parts share no photo, so that a network is never measured on what it
    was trained or calibrated with.
    """
    generator = np.random.default_rng(seed)
    photos = [photo for _, photo in builtin_photos(part)]
    first = int(generator.integers(len(photos)))
    travel = 2 * (frames - 1)
    background = _at_least(photos[first], height + travel, width + travel)
    speed = generator.integers(-2, 3, 2)
    corner = [int(generator.integers(travel, side + 1)) for side in _free(background, height, width)]
    # where the camera moves up or left it begins at the far end of its travel
    begin = [place - travel if step >= 0 else place for place, step in zip(corner, speed, strict=True)]
    scene = np.empty((frames, height, width, 3), np.float64)
    for time in range(frames):
        top, left = (place + int(step) * time for place, step in zip(begin, speed, strict=True))
        scene[time] = background[top : top + height, left : left + width]
    for number in range(3):
        radius = int(min(height, width) * generator.uniform(0.06, 0.16)) + 1
        texture = _at_least(photos[(first + 1 + number % 2) % len(photos)], 2 * radius + 1, 2 * radius + 1)
        cut = [int(generator.integers(side - 2 * radius)) for side in texture.shape[:2]]
        texture = texture[cut[0] : cut[0] + 2 * radius + 1, cut[1] : cut[1] + 2 * radius + 1]
        place = generator.uniform(0, 1, 2) * (height, width)
        velocity = generator.uniform(-5, 5, 2)
        for time in range(frames):
            _paste(scene[time], texture, place + velocity * time, radius)
    pixels = np.clip(np.rint(scene), 0, 255).astype(np.uint8)
    return pixels if color else grey(pixels)


def _free(background: np.ndarray, height: int, width: int) -> tuple[int, int]:
    return background.shape[0] - height, background.shape[1] - width


def _at_least(photo: np.ndarray, height: int, width: int) -> np.ndarray:
    scale = max(height / photo.shape[0], width / photo.shape[1])
    if scale <= 1:
        return photo
    return imresize(photo, size=(max(height, round(photo.shape[0] * scale)), max(width, round(photo.shape[1] * scale))))


def _paste(frame: np.ndarray, texture: np.ndarray, centre: np.ndarray, radius: int) -> None:
    """Draws a disc with the texture around `centre` (row, column), its edge one pixel soft, into (H,W,3)."""
    height, width = frame.shape[:2]
    middle = np.rint(centre).astype(int)
    rows = np.arange(max(0, middle[0] - radius), min(height, middle[0] + radius + 1))
    columns = np.arange(max(0, middle[1] - radius), min(width, middle[1] + radius + 1))
    if not len(rows) or not len(columns):
        return
    distance = np.hypot(*np.meshgrid(rows - centre[0], columns - centre[1], indexing="ij"))
    opacity = np.clip(radius - distance, 0, 1)[..., None]
    piece = texture[np.ix_(rows - middle[0] + radius, columns - middle[1] + radius)]
    target = frame[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    target += opacity * (piece - target)

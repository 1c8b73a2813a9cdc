"""Random training clips with their measurements, the same ones for a seed and a step on any number of processes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from qsci_plugins.data.snapshots import SensorNoise, mask_sum, measure
from qsci_plugins.errors import UserError

__all__ = ["ClipBatch", "SnapshotClips"]


class ClipBatch(NamedTuple):
    """What an SCI network takes, and the frames that it should give; float32, frames in 0..1.

    measurement and mask_sum (N,H,W), mask (N,T,H,W), frames (N,T,H,W) or in colour (N,3,T,H,W).
    """

    measurement: Tensor
    mask: Tensor
    mask_sum: Tensor
    frames: Tensor


class SnapshotClips:
    """Sequences in memory, and random clips of as many consecutive frames as `mask` has, `patch` pixels square.

    `sequences` are uint8 (F,H,W), or RGB (F,H,W,3) for Bayer networks. `mask` is one (T,h,w), or several (K,T,h,w), of which
    each clip is seen through one by chance; where masks are larger than a patch, through a part of it. With `resize` clips are
    cut and scaled as published (EfficientSCI's and Q-SCI's code): by halves the whole frame or a part of it of any shape from
    half a patch on, scaled to the patch; half of them are mirrored and half are turned by 180 degrees. Without, clips are cut
    as they are, in the eight symmetries of a square. Each clip is made up to `exposure` times brighter or darker, and what
    would be brighter than white is white, as behind a longer exposure. Raises UserError where no sequence is long and large
    enough, or the mask is smaller than a patch.
    """

    def __init__(
        self,
        sequences: Iterable[np.ndarray],
        mask: np.ndarray,
        patch: int,
        *,
        resize: bool = True,
        noise: SensorNoise | None = None,
        exposure: float = 1.0,
    ) -> None:
        self.patch = patch
        self.resize = resize
        self.noise = noise
        self.exposure = exposure
        masks = torch.from_numpy(np.asarray(mask, np.float32))
        self._masks = masks if masks.ndim == 4 else masks[None]
        count, height, width = self._masks.shape[1:]
        self._frames = count
        if min(height, width) < patch:
            raise UserError(f"the mask is {width}x{height} pixels, smaller than a training patch of {patch}x{patch}")
        self._sequences = [torch.from_numpy(np.asarray(frames)) for frames in sequences]
        smallest = patch // 2 if resize else patch
        self._sequences = [
            frames for frames in self._sequences if len(frames) >= count and min(frames.shape[1:3]) >= smallest
        ]
        if not self._sequences:
            raise UserError(f"no sequence has {count} frames of at least {smallest}x{smallest} pixels to train on")
        # clips may begin anywhere, and every beginning is as likely as any other
        self._starts = torch.tensor([len(frames) - count + 1 for frames in self._sequences]).cumsum(0)

    def __len__(self) -> int:
        """How many different beginnings of a clip there are."""
        return int(self._starts[-1])

    def draw(self, seed: int, step: int, batch: int, rank: int = 0, world: int = 1) -> ClipBatch:
        """The `rank`-th of `world` equal parts of the global batch of a step."""
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        starts = torch.randint(0, len(self), (batch,), generator=generator)
        chances = torch.rand(batch, 9, generator=generator).tolist()
        numbers = torch.randint(0, len(self._masks), (batch,), generator=generator).tolist()
        gains = self.exposure ** (2 * torch.rand(batch, generator=generator) - 1)
        clips, masks, noisy = [], [], []
        for index in range(rank, batch, world):
            clip = (self._clip(int(starts[index]), chances[index][:7]) * gains[index]).clamp_max(1)
            mask = self._mask_part(numbers[index], *chances[index][7:])
            measurement = measure(clip, mask)
            if self.noise is not None:
                measurement = torch.from_numpy(self.noise.add(measurement.numpy(), (seed, step, index)))
            clips.append(clip)
            masks.append(mask)
            noisy.append(measurement)
        mask = torch.stack(masks)
        return ClipBatch(torch.stack(noisy), mask, mask_sum(mask), torch.stack(clips))

    def _clip(self, start: int, chances: list[float]) -> Tensor:
        """(T,patch,patch) or (3,T,patch,patch) in 0..1, by seven numbers in 0..1."""
        number = int(torch.searchsorted(self._starts, start, right=True))
        sequence = self._sequences[number]
        first = start - (int(self._starts[number - 1]) if number else 0)
        frames = sequence[first : first + self._frames]
        top, left, height, width = self._region(frames.shape[1], frames.shape[2], chances[:5])
        part = frames[:, top : top + height, left : left + width]
        clip = (part if part.ndim == 3 else part.permute(3, 0, 1, 2)).float()
        if (height, width) != (self.patch, self.patch):
            # (T,C,H,W) for the interpolation of images, and back
            images = clip.unsqueeze(1) if clip.ndim == 3 else clip.transpose(0, 1)
            images = F.interpolate(images, (self.patch, self.patch), mode="bilinear")
            clip = images.squeeze(1) if clip.ndim == 3 else images.transpose(0, 1)
        return _turned(clip, chances[5], chances[6], square=not self.resize).contiguous() / 255

    def _region(self, height: int, width: int, chances: list[float]) -> tuple[int, int, int, int]:
        """Top, left, height and width of what is cut out of a frame."""
        kind, tall, wide, down, right = chances
        if not self.resize:
            rows, columns = self.patch, self.patch
        elif kind < 0.5:
            rows, columns = height, width
        else:
            smallest = self.patch // 2
            rows = smallest + int(tall * (height - smallest + 1))
            columns = smallest + int(wide * (width - smallest + 1))
        return int(down * (height - rows + 1)), int(right * (width - columns + 1)), rows, columns

    def _mask_part(self, number: int, down: float, right: float) -> Tensor:
        height, width = self._masks.shape[2:]
        top, left = int(down * (height - self.patch + 1)), int(right * (width - self.patch + 1))
        return self._masks[number, :, top : top + self.patch, left : left + self.patch]


def _turned(clip: Tensor, first: float, second: float, square: bool) -> Tensor:
    if square:
        clip = clip.rot90(int(first * 4), (-2, -1))
        return clip.flip(-1) if second < 0.5 else clip
    if first < 0.5:
        clip = clip.flip(-1)
    return clip.flip((-2, -1)) if second < 0.5 else clip

"""Random low/high-resolution patch pairs, the same ones for a seed and a step on any number of processes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from qsci_plugins.data.folders import find_images
from qsci_plugins.data.images import read_image
from qsci_plugins.errors import UserError

__all__ = ["PatchPairs"]


class PatchPairs:
    """Photos in memory with their bicubic low-resolution versions, and random aligned patches of both.

    `images` are uint8 RGB arrays (H,W,3). A draw depends on (seed, step) alone, so a resumed run sees the
    batches that it would have seen, and processes that share a global batch see disjoint parts of the same
    one.
    """

    def __init__(self, images: Iterable[np.ndarray], scale: int, patch: int) -> None:
        self.scale = scale
        self.patch = patch
        self._pairs: list[tuple[Tensor, Tensor]] = []
        for image in images:
            high = torch.from_numpy(np.array(image)).permute(2, 0, 1)
            height, width = high.shape[1] // scale, high.shape[2] // scale
            if min(height, width) < patch:
                continue
            high = high[:, : height * scale, : width * scale].contiguous()
            low = F.interpolate(high[None].float(), (height, width), mode="bicubic", antialias=True)[0]
            self._pairs.append((low.round().clamp(0, 255).to(torch.uint8), high))
        if not self._pairs:
            raise UserError(f"no training image is at least {patch * scale} pixels high and wide")
        # a photo is drawn as often as its area asks for, so that every pixel is as likely as any other
        self._weights = torch.tensor([float(low[0].numel()) for low, _ in self._pairs])

    def __len__(self) -> int:
        return len(self._pairs)

    @classmethod
    def from_folders(
        cls,
        folders: Sequence[tuple[Path, int]],
        scale: int,
        patch: int,
        on_file: Callable[[int, int], None] = lambda done, total: None,
    ) -> PatchPairs:
        """Reads every `stride`-th image of each (folder, stride)."""
        files = [file for folder, stride in folders for file in find_images(folder, stride)]

        def read() -> Iterable[np.ndarray]:
            for done, file in enumerate(files, 1):
                yield read_image(file)
                on_file(done, len(files))

        return cls(read(), scale, patch)

    def draw(self, seed: int, step: int, batch: int, rank: int = 0, world: int = 1) -> tuple[Tensor, Tensor]:
        """The `rank`-th of `world` equal parts of the global batch of a step.

        Returns low (batch/world,3,patch,patch) and high (batch/world,3,scale*patch,scale*patch), float32 in
        0..255, with random flips and quarter turns.
        """
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        photos = torch.multinomial(self._weights, batch, replacement=True, generator=generator).tolist()
        corners = torch.rand(batch, 2, generator=generator)
        turns = torch.randint(0, 8, (batch,), generator=generator).tolist()
        lows, highs = [], []
        for index in range(rank, batch, world):
            low, high = self._pairs[photos[index]]
            top = int(corners[index, 0] * (low.shape[1] - self.patch + 1))
            left = int(corners[index, 1] * (low.shape[2] - self.patch + 1))
            lows.append(_turn(_crop(low, top, left, self.patch), turns[index]))
            highs.append(_turn(_crop(high, top * self.scale, left * self.scale, self.patch * self.scale), turns[index]))
        return torch.stack(lows).float(), torch.stack(highs).float()


def _crop(image: Tensor, top: int, left: int, size: int) -> Tensor:
    return image[:, top : top + size, left : left + size]


def _turn(image: Tensor, index: int) -> Tensor:
    """One of the eight symmetries of a square."""
    image = image.rot90(index % 4, (1, 2))
    return image.flip(2) if index >= 4 else image

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from qsci_plugins.data import write_image
from qsci_plugins.data.patches import PatchPairs
from qsci_plugins.errors import UserError


@pytest.fixture
def pairs() -> PatchPairs:
    generator = np.random.default_rng(0)
    return PatchPairs([generator.integers(0, 256, (41, 50, 3), np.uint8) for _ in range(2)], scale=2, patch=8)


def test_a_draw_depends_on_seed_and_step_alone(pairs: PatchPairs) -> None:
    low, high = pairs.draw(1, 5, 4)
    assert low.shape == (4, 3, 8, 8)
    assert high.shape == (4, 3, 16, 16)
    torch.manual_seed(99)
    again = pairs.draw(1, 5, 4)
    assert torch.equal(again[0], low)
    assert torch.equal(again[1], high)
    assert not torch.equal(pairs.draw(1, 6, 4)[0], low)
    assert not torch.equal(pairs.draw(2, 5, 4)[0], low)


def test_ranks_share_the_global_batch(pairs: PatchPairs) -> None:
    whole, _ = pairs.draw(0, 0, 6)
    parts = [pairs.draw(0, 0, 6, rank, 3)[0] for rank in range(3)]
    assert torch.equal(torch.stack(parts, 1).flatten(0, 1), whole)


def test_low_and_high_show_the_same_place() -> None:
    ramp = np.add.outer(3 * np.arange(48), np.arange(64)).astype(np.uint8)[..., None].repeat(3, 2)
    low, high = PatchPairs([ramp], scale=2, patch=12).draw(0, 3, 8)
    means = torch.nn.functional.avg_pool2d(high, 2)
    assert (low - means)[..., 2:-2, 2:-2].abs().max() <= 1


def test_photos_below_a_patch_are_left_out() -> None:
    small, large = np.zeros((15, 40, 3), np.uint8), np.zeros((16, 40, 3), np.uint8)
    assert len(PatchPairs([small, large], scale=2, patch=8)) == 1
    with pytest.raises(UserError, match="at least 16 pixels"):
        PatchPairs([small], scale=2, patch=8)


def test_folders_are_read_with_their_strides(tmp_path: Path) -> None:
    for index in range(4):
        write_image(tmp_path / f"{index}.png", np.full((16, 16, 3), 60 * index, np.uint8))
    seen: list[tuple[int, int]] = []
    pairs = PatchPairs.from_folders([(tmp_path, 3)], 2, 8, lambda done, total: seen.append((done, total)))
    assert len(pairs) == 2
    assert seen == [(1, 2), (2, 2)]
    assert set(pairs.draw(0, 0, 16)[1].unique().tolist()) == {0.0, 180.0}

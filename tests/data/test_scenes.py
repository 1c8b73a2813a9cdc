from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from qsci_plugins.data.scenes import synthetic_scene
from qsci_plugins.data.sequences import grey


def test_the_scene_is_the_same_for_a_seed_and_moves() -> None:
    scene = synthetic_scene()
    assert scene.shape == (8, 256, 256)
    assert np.array_equal(scene, synthetic_scene())
    assert not np.array_equal(scene, synthetic_scene(seed=1))
    assert all((before != after).mean() > 0.1 for before, after in pairwise(scene))


@pytest.mark.parametrize(("frames", "height", "width"), [(1, 8, 8), (3, 33, 70), (2, 500, 700)])
def test_any_size_in_grey_and_colour(frames: int, height: int, width: int) -> None:
    color = synthetic_scene(frames, height, width, 3, color=True)
    assert color.shape == (frames, height, width, 3)
    assert np.array_equal(synthetic_scene(frames, height, width, 3), grey(color))

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from qsci_plugins.report.scatter import Point, front, scatter

NUMBERS = st.floats(0, 100, allow_nan=False)
POINTS = st.lists(st.builds(Point, st.just("p"), NUMBERS, NUMBERS), min_size=1, max_size=20)


@given(POINTS)
def test_no_point_beats_the_front_and_the_front_beats_every_other(points: list[Point]) -> None:
    best = front(points)
    for point in best:
        better = [p for p in points if p.cost <= point.cost and p.quality >= point.quality]
        assert all((p.cost, p.quality) == (point.cost, point.quality) for p in better)
    for point in points:
        assert any(p.cost <= point.cost and p.quality >= point.quality for p in best)
    assert [p.cost for p in best] == sorted(p.cost for p in best)


def test_points_lie_where_their_numbers_say() -> None:
    points = [Point("1", 10, 30.0), Point("2", 20, 32.0), Point("3", 30, 31.0)]
    picture = scatter(points, "cost", "quality", ("float", 33.0)).astype(int)
    assert picture.shape == (480, 640, 3)
    beaten = np.argwhere((picture == (49, 84, 196)).all(2))
    best = np.argwhere((picture == (206, 46, 46)).all(2))
    assert len(beaten) > 50
    assert best[:, 1].max() < beaten[:, 1].min()  # the third one costs most
    assert best[:, 0].min() < beaten[:, 0].mean() < best[:, 0].max()  # and lies between the two in quality


def test_equal_points_can_be_drawn() -> None:
    assert scatter([Point("1", 5.0, 30.0)] * 2, "cost", "quality").std() > 0
    assert scatter([Point("1", 0.0, 0.0)], "cost", "quality", ("float", 0.0)).std() > 0


def test_a_label_at_the_right_edge_is_written_to_the_left() -> None:
    long = scatter([Point("a", 0, 1), Point("a label of some length", 30, 2)], "x", "y")
    short = scatter([Point("a", 0, 1), Point("", 30, 2)], "x", "y")
    changed = np.argwhere((long != short).any(2))[:, 1]
    dots = np.argwhere((short == (206, 46, 46)).all(2))[:, 1]
    assert changed.max() < dots.max()

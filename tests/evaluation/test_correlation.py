from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qsci_plugins.evaluation.correlation import pearson, spearman


def test_ranks_and_not_sizes_count_for_spearman() -> None:
    assert spearman([1, 2, 3, 4], [1, 10, 100, 1000]) == pytest.approx(1)
    assert spearman([1, 2, 3, 4], [4, 3, 2, -9]) == pytest.approx(-1)
    assert pearson([1, 2, 3, 4], [1, 10, 100, 1000]) == pytest.approx(1543.5 / (5 * 701520.75) ** 0.5)


def test_equal_values_share_a_rank() -> None:
    # ranks 1, 2.5, 2.5, 4 against 1, 2, 3, 4: covariance 4.5, variances 4.5 and 5
    assert spearman([0, 5, 5, 9], [1, 2, 3, 4]) == pytest.approx(4.5 / (4.5 * 5) ** 0.5)


@pytest.mark.parametrize(("x", "y"), [([], []), ([1], [2]), ([1, 1], [2, 3]), ([1, 2], [3, 3])])
def test_what_never_changes_has_no_correlation(x: list[float], y: list[float]) -> None:
    assert pearson(x, y) is None
    assert spearman(x, y) is None


@given(st.lists(st.tuples(st.integers(-50, 50), st.integers(-50, 50)), min_size=2, max_size=30))
def test_a_rising_function_changes_nothing_for_spearman(pairs: list[tuple[int, int]]) -> None:
    x, y = [float(a) for a, _ in pairs], [float(b) for _, b in pairs]
    first, second = spearman(x, y), spearman([a**3 for a in x], [2 * b + 1 for b in y])
    assert (first is None) == (second is None)
    if first is not None:
        assert -1 - 1e-9 <= first <= 1 + 1e-9
        assert second == pytest.approx(first)

"""The candidate with the least squared error, of a tensor or of each row."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from qsci_plugins.schemes.fit import least_error, shrinking
from qsci_plugins.schemes.quantizer import QParams


def _params(step: Tensor | float, bound: float = 1.0) -> QParams:
    return QParams(torch.as_tensor(step), None, torch.tensor(-bound), torch.tensor(bound), torch.tensor(2.0))


def test_shares_of_a_range() -> None:
    assert shrinking(3) == [1.0, 0.99, 0.98]
    assert shrinking(20, 25)[-1] == 1 - 19 / 25


def test_the_least_of_a_tensor() -> None:
    x = torch.tensor([-1.0, 0.0, 1.0, 1.0])
    assert least_error(x, [3.0, 1.1, 0.5, 1.0, 1.0], _params).item() == 3


def test_a_clipped_outlier_counts() -> None:
    x = torch.tensor([[0.5, 0.5, 0.5, 10.0]])
    assert least_error(x, [10.0, 0.5], _params).item() == 0


def test_the_least_of_each_row() -> None:
    rows = torch.tensor([[-1.0, 1.0], [0.5, -0.5], [0.0, 0.0]])
    best = least_error(rows, shrinking(51), lambda share: _params(torch.ones(3, 1) * share), per_row=True)
    assert best.tolist() == [[0], [50], [0]]


def test_candidates_may_be_anything_and_an_offset_counts() -> None:
    x = torch.tensor([2.0, 3.0, 3.0])

    def params(bounds: tuple[float, float]) -> QParams:
        lower, upper = torch.tensor(bounds)
        return QParams((upper - lower) / 3, lower, torch.tensor(0.0), torch.tensor(3.0), torch.tensor(2.0))

    assert least_error(x, [(0.0, 4.0), (2.0, 3.0), (2.0, 5.0)], params).item() == 1


def test_what_is_no_number() -> None:
    assert least_error(torch.tensor([torch.nan]), [1.0, 2.0], _params).item() == 0
    assert least_error(torch.tensor([2.0]), [torch.nan, 2.0], _params).item() == 1
    with pytest.raises(ValueError, match="no candidates"):
        least_error(torch.ones(1), [], _params)

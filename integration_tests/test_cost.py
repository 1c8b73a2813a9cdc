"""`qsci cost` on a network so small that nothing about its numbers is judged: they are a command's, not a test's."""

from __future__ import annotations

import pytest

from qsci_plugins.comparing.cost import measure_cost
from qsci_plugins.comparing.settings import CostSettings
from qsci_plugins.errors import UserError

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("scheme", "backend"), [("adabm", "nncf"), ("cadyq", "brevitas")])
def test_every_number_is_there(scheme: str, backend: str) -> None:
    cost = measure_cost(CostSettings(schemes=[scheme], backends=[backend], pairs=2, threads=1, blocks=2, width=8))
    (row,) = cost["rows"]
    assert (row["scheme"], row["backend"]) == (scheme, backend)
    for part in ("training", "evaluation", "fine_tuning"):
        assert row[part]["float_ms"] > 0
        assert row[part]["quantized_ms"] > 0
        assert row[part]["ratio"] > 0
    if row["memory"] is not None:
        assert row["memory"]["quantized_mib"] > 0
        assert row["memory"]["float_process_mib"] > 100


def test_an_unknown_scheme_is_refused_before_any_work() -> None:
    with pytest.raises(UserError, match="no scheme is called 'adabn'"):
        measure_cost(CostSettings(schemes=["adabm", "adabn"], backends=["nncf"]))

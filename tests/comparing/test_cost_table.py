from __future__ import annotations

from qsci_plugins.comparing.cost import Pairs
from qsci_plugins.report.bench_tables import cost_table


def test_the_ratio_is_the_median_over_turns_not_the_ratio_of_medians() -> None:
    pairs = Pairs()
    for plain, quantized in [(0.1, 0.15), (0.4, 0.6), (0.2, 2.0)]:  # the machine was busy, then stalled
        pairs.add(plain, quantized)
    assert pairs.summary() == {"float_ms": 200.0, "quantized_ms": 600.0, "ratio": 1.5}


def test_turns_alternate_and_the_first_ones_do_not_count() -> None:
    calls: list[str] = []
    pairs = Pairs().measure(lambda: calls.append("plain"), lambda: calls.append("quantized"), 3)
    assert calls == ["quantized", "plain", "plain", "quantized"] * 2 + ["quantized", "plain"]
    assert len(pairs) == 3


def test_the_table_names_every_scheme_and_backend() -> None:
    time = {"float_ms": 400.4, "quantized_ms": 600.6, "ratio": 1.5}
    row = {"training": time, "evaluation": time, "fine_tuning": time, "form": "integer"}
    memory = {"float_mib": 100.0, "quantized_mib": 140.2, "ratio": 1.402}
    cost = {
        "network": {"architecture": "edsr", "scale": 2, "blocks": 8, "width": 64},
        "threads": 2,
        "rows": [
            {**row, "scheme": "adabm", "backend": "nncf", "memory": memory},
            {**row, "scheme": "qsci", "backend": "brevitas", "memory": None},
        ],
    }
    lines = cost_table(cost).splitlines()
    assert lines[0] == "edsr x2, 8 blocks of 64 channels, 2 threads, integer form: quantized / float"
    assert [line.split(" | ")[0].strip("| ") for line in lines[4:]] == ["adabm in nncf", "qsci in brevitas"]
    assert "1.50 (601 / 400 ms)" in lines[4]
    assert "1.40 (140 / 100 MiB)" in lines[4]
    assert lines[5].endswith("- |")

from __future__ import annotations

import csv
import io
import json
import re

import pytest

from qsci_plugins.cli import main
from qsci_plugins.report.benchmark_tables import FORMATS, benchmark_text


def on_set(psnr: float | None, fab: float | None, **counts: float) -> dict[str, object]:
    return {"psnr": psnr, "ssim": 0.91234, "fab": fab, **counts, "pieces": {"a": {"psnr": psnr}}}


RESULT = {
    "version": 2,
    "rows": [
        {
            "network": "edsr x2", "title": None, "form": "float", "seconds": None,
            "sets": {"Set5": on_set(37.804, 32.0, cadyq_bitops=3e11, weight_activation_bitops=3.2e14), "Set14": on_set(None, 32)},
        },
        {
            "network": "edsr x2", "title": "my_w4a4", "form": "torch", "seconds": 61.4,
            "sets": {
                "Set5": on_set(37.196, 3.25, cadyq_bitops=1e11, weight_activation_bitops=1.15e13),
                "Set14": on_set(33.1, 3.4),
            },
        },
        {"network": "carn x4", "title": "b", "form": "openvino", "seconds": 5.0, "sets": {"Set5": on_set(31.5, 4.0)}},
    ],
}  # fmt: skip


def test_markdown_has_a_row_per_form_and_lines_up() -> None:
    lines = benchmark_text(RESULT, "md").splitlines()
    assert len(lines) == 5
    assert len({len(line) for line in lines}) == 1
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    assert cells[2] == ["edsr x2: float", "37.80 / 0.9123 / 32.00", "equal / 0.9123 / 32.00", "320.00", ""]
    assert cells[3] == ["my_w4a4: torch", "37.20 / 0.9123 / 3.25", "33.10 / 0.9123 / 3.40", "11.50", "61"]
    assert cells[4][0] == "b: OpenVINO"


def test_csv_has_a_row_per_form_and_set() -> None:
    rows = list(csv.DictReader(io.StringIO(benchmark_text(RESULT, "csv"))))
    assert [(row["title"], row["form"], row["set"]) for row in rows] == [
        ("", "float", "Set5"),
        ("", "float", "Set14"),
        ("my_w4a4", "torch", "Set5"),
        ("my_w4a4", "torch", "Set14"),
        ("b", "openvino", "Set5"),
    ]
    assert float(rows[2]["psnr"]) == 37.196
    assert float(rows[2]["weight_activation_bitops"]) == 1.15e13
    assert rows[1]["psnr"] == rows[3]["cadyq_bitops"] == ""


def test_latex_has_as_many_cells_in_every_row() -> None:
    text = benchmark_text(RESULT, "latex")
    rows = [line for line in text.splitlines() if line.endswith(r"\\") and "multicolumn" not in line]
    assert {row.count("&") for row in rows} == {9}
    assert len(re.search(r"tabular\}\{(\w+)\}", text)[1]) == 10
    assert r"my\_w4a4 & torch & 37.20 & 0.9123 & 3.25 & 33.10" in text
    assert text.count(r"\midrule") == 2  # under the header, and between the two networks
    assert rows[-1].count("--") == 4


def test_json_is_everything() -> None:
    assert json.loads(benchmark_text(RESULT, "json")) == RESULT


@pytest.mark.parametrize("format_", FORMATS)
def test_the_command_knows_every_format(format_: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", "no_such_recipe_at_all", "--format", format_]) == 2
    assert "there is no recipe" in capsys.readouterr().err

"""A benchmark as Markdown, CSV, JSON or LaTeX."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from qsci_plugins.report.summary import Rows, table

__all__ = ["FORMATS", "benchmark_rows", "benchmark_text"]

_TITLES = {"float": "float", "nncf": "NNCF default INT8", "torch": "torch", "openvino": "OpenVINO"}

#: multiply-accumulates of 32 x 32 bits and of fewer, at 1280x720 output, in units of 1e12
_TERA = 1e12


def benchmark_text(result: Mapping[str, Any], format_: str) -> str:
    """The result of `comparing.benchmark.run_benchmark` in one of `FORMATS`, without a last line break.

    Markdown and LaTeX have a row per form with PSNR (of images on Y) / SSIM / FAB on every set; CSV a row per form and set; JSON
    everything, with every image.
    """
    return FORMATS[format_](result)


def _markdown(result: Mapping[str, Any]) -> str:
    return table(*benchmark_rows(result))


def benchmark_rows(result: Mapping[str, Any]) -> Rows:
    """The cells of the Markdown table."""
    sets = _sets(result)
    header = ["network or recipe: form", *(f"{name} dB / SSIM / FAB" for name in sets), "TBitOPs", "seconds"]
    rows = [
        [f"{_name(row)}: {_TITLES[row['form']]}", *(" / ".join(_cells(row, name)) for name in sets), *_costs(row)]
        for row in result["rows"]
    ]
    return header, rows


def _latex(result: Mapping[str, Any]) -> str:
    sets = _sets(result)
    groups = " & ".join(rf"\multicolumn{{3}}{{c}}{{{_escaped(name)}}}" for name in sets)
    rules = " ".join(rf"\cmidrule(lr){{{3 * index + 3}-{3 * index + 5}}}" for index in range(len(sets)))
    lines = [
        "% needs \\usepackage{booktabs}",
        rf"\begin{{tabular}}{{ll{'rrr' * len(sets)}rr}}",
        r"\toprule",
        rf" &  & {groups} &  & \\",
        rules,
        rf"Network & Form & {' & '.join(['PSNR & SSIM & FAB'] * len(sets))} & TBitOPs & Seconds \\",
        r"\midrule",
    ]
    previous = None
    for row in result["rows"]:
        if previous not in (None, row["network"]):
            lines.append(r"\midrule")
        previous = row["network"]
        cells = [cell or "--" for name in sets for cell in _cells(row, name)]
        costs = [cell or "--" for cell in _costs(row)]
        lines.append(" & ".join([_escaped(_name(row)), _escaped(_TITLES[row["form"]]), *cells, *costs]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"])


def _csv(result: Mapping[str, Any]) -> str:
    text = io.StringIO()
    columns = ["network", "title", "form", "set", "psnr", "ssim", "fab"]
    counts = ["cadyq_bitops", "weight_activation_bitops"]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*columns, *counts, "seconds"])
    for row in result["rows"]:
        for name, measured in row["sets"].items():
            about = [row["network"], row["title"] or "", row["form"], name]
            numbers = [measured.get(key) for key in (*columns[4:], *counts)]
            writer.writerow([*about, *("" if value is None else value for value in (*numbers, row["seconds"]))])
    return text.getvalue().rstrip("\n")


def _json(result: Mapping[str, Any]) -> str:
    return json.dumps(result, indent=2, allow_nan=False)


def _sets(result: Mapping[str, Any]) -> list[str]:
    return list(dict.fromkeys(name for row in result["rows"] for name in row["sets"]))


def _name(row: Mapping[str, Any]) -> str:
    return str(row["title"] or row["network"])


def _cells(row: Mapping[str, Any], name: str) -> Sequence[str]:
    """PSNR, SSIM and FAB of a row on a set."""
    measured = row["sets"].get(name)
    if measured is None:
        return "", "", ""
    psnr, ssim, fab = (measured.get(key) for key in ("psnr", "ssim", "fab"))
    quality = "equal" if psnr is None else f"{psnr:.2f}"
    return quality, "" if ssim is None else f"{ssim:.4f}", "" if fab is None else f"{fab:.2f}"


def _costs(row: Mapping[str, Any]) -> Sequence[str]:
    """Weight bits x activation bits, the mean over sets, and the seconds of calibration and training."""
    counts = [measured.get("weight_activation_bitops") for measured in row["sets"].values()]
    known = [count for count in counts if count is not None]
    operations = f"{sum(known) / len(known) / _TERA:.2f}" if known else ""
    return operations, "" if row["seconds"] is None else f"{row['seconds']:.0f}"


def _escaped(text: str) -> str:
    for mark in "&%$#_{}":
        text = text.replace(mark, f"\\{mark}")
    return text


#: how a benchmark is printed, by the name of the format
FORMATS: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "md": _markdown,
    "csv": _csv,
    "json": _json,
    "latex": _latex,
}

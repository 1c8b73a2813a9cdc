"""What a sweep leaves to look at: sweep.md, sweep.csv and the picture of PSNR against BitOPs."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from qsci_plugins.data.images import write_image
from qsci_plugins.files import write_text
from qsci_plugins.report.figures import comparison
from qsci_plugins.report.scatter import Point, scatter
from qsci_plugins.report.summary import Rows, table

__all__ = ["AXES", "sweep_csv", "sweep_picture", "sweep_rows", "sweep_table", "write_sweep"]

_TERA = 1e12
#: what the axes of a picture are, by task
AXES = {
    "sr": ("TBitOPs (weight x activation bits, 1280x720)", "PSNR-Y, dB"),
    "sci": ("TBitOPs (weight x activation bits, 256x256)", "PSNR, dB"),
}
_TITLES = {"torch": "torch", "openvino": "OpenVINO"}


def write_sweep(result: Mapping[str, Any], folder: Path) -> list[Path]:
    """sweep.md, sweep.csv and sweep.png; without the last where no point has a number of decibels."""
    write_text(folder / "sweep.md", sweep_table(result) + "\n")
    write_text(folder / "sweep.csv", sweep_csv(result))
    files = [folder / "sweep.md", folder / "sweep.csv"]
    picture = sweep_picture(result)
    if picture is not None:
        write_image(folder / "sweep.png", picture)
        files.append(folder / "sweep.png")
    return files


def sweep_table(result: Mapping[str, Any]) -> str:
    """A row per point, numbered as in the picture: PSNR with the loss to float and FAB on every set, TBitOPs, seconds."""
    return table(*sweep_rows(result))


def sweep_rows(result: Mapping[str, Any]) -> Rows:
    """The cells of `sweep_table`."""
    sets = list(result["float"]["sets"])
    forms = [form for form in _TITLES if all(form in point["rows"] for point in result["points"])]
    quality = [f"{name} {_TITLES[form]}" for form in forms for name in sets]
    header = ["settings", *(f"{title} dB (loss) @ FAB" for title in quality), "TBitOPs", "seconds"]
    plain = result["float"]["sets"]
    rows = [["float", *(_decibels(plain[name]) for _ in forms for name in sets), _operations(result["float"]), ""]]
    for number, point in enumerate(result["points"], 1):
        cells = [_quality(point["rows"][form]["sets"][name], plain[name]) for form in forms for name in sets]
        row = point["rows"]["torch"]
        seconds = "" if row["seconds"] is None else f"{row['seconds']:.0f}"
        rows.append([f"{number}: {point['title']}", *cells, _operations(row), seconds])
    return header, rows


def sweep_csv(result: Mapping[str, Any]) -> str:
    """A row per point, form and set; a column per key, empty where the recipe's own value stands."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    numbers = ["psnr", "ssim", "fab", "cadyq_bitops", "weight_activation_bitops"]
    writer.writerow(["number", *result["keys"], "form", "set", *numbers, "seconds"])
    lines: list[tuple[Any, Mapping[str, Any], Mapping[str, Any]]] = [("", {}, result["float"])]
    lines += [
        (n, point["settings"], row) for n, point in enumerate(result["points"], 1) for row in point["rows"].values()
    ]
    for number, settings, row in lines:
        values = [_value(settings[key]) if key in settings else "" for key in result["keys"]]
        for name, measured in row["sets"].items():
            values_of = [measured.get(key) for key in numbers]
            shown = ["" if value is None else value for value in (*values_of, row["seconds"])]
            writer.writerow([number, *values, row["form"], name, *shown])
    return text.getvalue()


def sweep_picture(result: Mapping[str, Any]) -> np.ndarray | None:
    """A panel per set with the front of PSNR against BitOPs, and what the numbers stand for; uint8 (H,W,3)."""
    panels = []
    for name, plain in result["float"]["sets"].items():
        points = [
            Point(str(number), measured["weight_activation_bitops"] / _TERA, measured["psnr"])
            for number, point in enumerate(result["points"], 1)
            if (measured := point["rows"]["torch"]["sets"][name])["psnr"] is not None
        ]
        if points:
            level = None if plain["psnr"] is None else ("float", plain["psnr"])
            panels.append((name, scatter(points, *AXES[result["float"]["task"]], level)))
    if not panels:
        return None
    picture = comparison(panels, columns=min(2, len(panels)))
    return np.concatenate([picture, _legend([point["title"] for point in result["points"]], picture.shape[1])])


def _legend(titles: list[str], width: int) -> np.ndarray:
    font, line = ImageFont.load_default(16), 22
    canvas = Image.new("RGB", (width, line * len(titles) + 12), (255, 255, 255))
    draw = ImageDraw.Draw(canvas)
    for index, title in enumerate(titles):
        draw.text((12, line * index), f"{index + 1}: {title}", fill=(34, 34, 34), font=font)
    return np.asarray(canvas)


def _decibels(measured: Mapping[str, Any]) -> str:
    return "equal" if measured["psnr"] is None else f"{measured['psnr']:.2f}"


def _quality(measured: Mapping[str, Any], plain: Mapping[str, Any]) -> str:
    known = measured["psnr"] is not None and plain["psnr"] is not None
    loss = f" ({round(plain['psnr'] - measured['psnr'], 2) + 0.0:.2f})" if known else ""
    bits = "" if measured["fab"] is None else f" @ {measured['fab']:.2f}"
    return f"{_decibels(measured)}{loss}{bits}"


def _operations(row: Mapping[str, Any]) -> str:
    counts = [measured.get("weight_activation_bitops") for measured in row["sets"].values()]
    known = [count for count in counts if count is not None]
    return f"{sum(known) / len(known) / _TERA:.2f}" if known else ""


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)

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
from qsci_plugins.report.table import table

__all__ = ["sweep_csv", "sweep_picture", "sweep_table", "write_sweep"]

_TERA = 1e12
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
    """A row per point, numbered as in the picture: PSNR-Y with the loss to float and FAB on every set, TBitOPs, seconds."""
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
    return table(header, rows)


def sweep_csv(result: Mapping[str, Any]) -> str:
    """A row per point, form and set; a column per key, empty where the recipe's own value stands."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    numbers = ["psnr_y", "ssim", "fab", "cadyq_bitops", "weight_activation_bitops"]
    writer.writerow(["number", *result["keys"], "form", "set", *numbers, "seconds"])
    lines: list[tuple[Any, Mapping[str, Any], Mapping[str, Any]]] = [("", {}, result["float"])]
    lines += [
        (n, point["settings"], row) for n, point in enumerate(result["points"], 1) for row in point["rows"].values()
    ]
    for number, settings, row in lines:
        values = [_value(settings[key]) if key in settings else "" for key in result["keys"]]
        for name, one in row["sets"].items():
            measured = [one.get(key) for key in numbers]
            shown = ["" if value is None else value for value in (*measured, row["seconds"])]
            writer.writerow([number, *values, row["form"], name, *shown])
    return text.getvalue()


def sweep_picture(result: Mapping[str, Any]) -> np.ndarray | None:
    """A panel per set with the front of PSNR-Y against BitOPs, and what the numbers stand for; uint8 (H,W,3)."""
    panels = []
    for name, plain in result["float"]["sets"].items():
        points = [
            Point(str(number), one["weight_activation_bitops"] / _TERA, one["psnr_y"])
            for number, point in enumerate(result["points"], 1)
            if (one := point["rows"]["torch"]["sets"][name])["psnr_y"] is not None
        ]
        if points:
            level = None if plain["psnr_y"] is None else ("float", plain["psnr_y"])
            panels.append((name, scatter(points, "TBitOPs (weight x activation bits, 1280x720)", "PSNR-Y, dB", level)))
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


def _decibels(one: Mapping[str, Any]) -> str:
    return "equal" if one["psnr_y"] is None else f"{one['psnr_y']:.2f}"


def _quality(one: Mapping[str, Any], plain: Mapping[str, Any]) -> str:
    known = one["psnr_y"] is not None and plain["psnr_y"] is not None
    loss = f" ({round(plain['psnr_y'] - one['psnr_y'], 2) + 0.0:.2f})" if known else ""
    return f"{_decibels(one)}{loss} @ {one['fab']:.2f}"


def _operations(row: Mapping[str, Any]) -> str:
    counts = [one["weight_activation_bitops"] for one in row["sets"].values()]
    return f"{sum(counts) / len(counts) / _TERA:.2f}"


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)

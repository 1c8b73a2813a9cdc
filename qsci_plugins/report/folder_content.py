"""What a folder gives to report.html: the output of a run, a benchmark, a sweep or a reconstruction."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qsci_plugins.errors import UserError
from qsci_plugins.report.content import Block, PageContent, PageSection, Table
from qsci_plugins.report.page import machine_block, run_content
from qsci_plugins.report.summary import Rows

__all__ = ["RECONSTRUCTION_FILE", "read_content"]

#: what `qsci reconstruct` leaves besides frames
RECONSTRUCTION_FILE = "reconstruction.json"

_TERA = 1e12


def read_content(folder: Path, name: str = "") -> PageContent:
    """The content of a folder, under a name that tells it from others in the page.

    Raises UserError for a folder that no command of these left, and files in it that are damaged.
    """
    for file, read in (("sweep.json", _sweep), ("benchmark.json", _benchmark), (RECONSTRUCTION_FILE, _reconstruction)):
        if (folder / file).is_file():
            try:
                return read(folder, name, json.loads((folder / file).read_text(encoding="utf-8")))
            except (KeyError, TypeError, AttributeError, ValueError, StopIteration) as error:
                raise UserError(f"{folder / file} is damaged ({error!r}); run the command again") from None
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}; give the output of a run, benchmark, sweep or reconstruction")
    return run_content(folder, name)


def _benchmark(folder: Path, name: str, result: Mapping[str, Any]) -> PageContent:
    from qsci_plugins.report.benchmark_tables import benchmark_rows

    rows = result["rows"]
    dots = [
        (measured["weight_activation_bitops"] / _TERA, measured["psnr"], row["title"] or row["form"], title)
        for row in rows
        for title, measured in row["sets"].items()
        if measured.get("weight_activation_bitops") and measured["psnr"] is not None
    ]
    block = _measured(name, "Every form on every set", benchmark_rows(result), dots, rows[0]["task"])
    networks = list(dict.fromkeys(row["network"] for row in rows))
    highlights = [
        (f"{len(rows)} forms", f"of {', '.join(networks)}"),
        (f"{len(rows[0]['sets'])} sets", ", ".join(rows[0]["sets"])),
    ]
    return _compared(folder, name, "Benchmark", highlights, block, {"benchmark": result}, result["machine"])


def _sweep(folder: Path, name: str, result: Mapping[str, Any]) -> PageContent:
    from qsci_plugins.report.sweep_tables import sweep_rows

    points = result["points"]
    dots = [
        (measured["weight_activation_bitops"] / _TERA, measured["psnr"], str(number), title)
        for number, point in enumerate(points, 1)
        for title, measured in point["rows"]["torch"]["sets"].items()
        if measured.get("weight_activation_bitops") and measured["psnr"] is not None
    ]
    block = _measured(name, "Every point, numbered as in the chart", sweep_rows(result), dots, result["float"]["task"])
    highlights = [(f"{len(points)} points", f"of {', '.join(result['keys'])}")]
    measured = json.loads((folder / "benchmark.json").read_text(encoding="utf-8"))
    title = f"Sweep of {Path(result['recipe']).stem}"
    return _compared(folder, name, title, highlights, block, {"sweep": result}, measured["machine"])


def _measured(name: str, title: str, rows: Rows, dots: list[tuple[float, float, str, str]], task: str) -> Block:
    from qsci_plugins.report.sweep_tables import AXES

    chart = ("psnr", dots, *AXES[task], "PSNR over operations") if dots else ()
    return Block(name, chart, [Table(title, rows)])


def _compared(
    folder: Path,
    name: str,
    title: str,
    highlights: list[tuple[str, str]],
    block: Block,
    data: Mapping[str, Any],
    machine: Mapping[str, Any],
) -> PageContent:
    """A table of runs, and what each run below the folder says of itself."""
    runs = [run_content(file.parent, file.parent.name) for file in sorted(folder.glob("runs/*/metrics.json"))]
    wanted = ("bits", "latency", "training", "recipe")
    sections = [section for run in runs for section in run.sections if section.key in wanted]
    joined = []
    for key in dict.fromkeys(section.key for section in sections):
        same = [section for section in sections if section.key == key]
        joined.append(PageSection(key, same[0].title, [each for section in same for each in section.blocks]))
    everything = [
        PageSection("quality", "Quality and operations", [block]),
        *joined,
        PageSection("machine", "Machine and versions", [machine_block(name, machine)]),
    ]
    return PageContent(name, title, highlights, everything, {"name": name, **data, "runs": [run.data for run in runs]})


def _reconstruction(folder: Path, name: str, result: Mapping[str, Any]) -> PageContent:
    from qsci_plugins.report.pictures import read_pictures

    scenes = result["scenes"]
    rows = [
        [
            scene,
            str(found["measurements"]),
            *("" if found[key] is None else f"{found[key]:{form}}" for key, form in _SCORES),
        ]
        for scene, found in scenes.items()
    ]
    blocks = [Block(name, tables=[Table("", (["scene", "measurements", "PSNR dB", "SSIM"], rows))])]
    for scene, found in scenes.items():
        log = [
            {"step": number, **{key: score[key] for key, _ in _SCORES if score[key] is not None}}
            for number, score in enumerate(found["scores"], 1)
        ]
        if len(log) > 1:
            blocks.append(Block(scene, ("curves", log, f"{scene} by measurement", "measurement")))
    scored = [found["psnr"] for found in scenes.values() if found["psnr"] is not None]
    highlights = [(f"{len(scenes)} scene{'s' if len(scenes) > 1 else ''}", f"by {Path(result['model']).name}")]
    if scored:
        highlights.append((f"{sum(scored) / len(scored):.2f} dB", "PSNR, mean over scenes with a ground truth"))
    sections = [
        PageSection("quality", "Quality", blocks),
        PageSection("machine", "Machine and versions", [machine_block(name, result["machine"])]),
    ]
    data = {"name": name, "reconstruction": result}
    return PageContent(name, "Reconstruction", highlights, sections, data, read_pictures(folder))


_SCORES = (("psnr", ".2f"), ("ssim", ".4f"))

"""report.html: one file with everything that a run left, which asks nothing of a network; and several runs side by side."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qsci_plugins.errors import UserError
from qsci_plugins.extras import MissingExtraError, missing_extra
from qsci_plugins.files import write_text
from qsci_plugins.progress import Progress
from qsci_plugins.report.content import Block, PageContent, PageSection, Table
from qsci_plugins.report.summary import (
    FORMS,
    MEASURED,
    Rows,
    about,
    heading,
    latency_rows,
    operation_rows,
    patch_rows,
    quality_rows,
    seconds_rows,
    summary,
)

if TYPE_CHECKING:
    from qsci_plugins.pipeline.run import RunResult
    from qsci_plugins.report.pictures import Picture

__all__ = ["REPORT_FILE", "machine_block", "run_content", "write_page", "write_report"]

REPORT_FILE = "report.html"

#: characters of pictures in a page, which has less than 6 MB
_PICTURE_BUDGET = 4_800_000

#: runs that have charts, where a page has many
_CHARTED = 12


def write_report(result: RunResult, folder: Path, progress: Progress | None = None) -> None:
    """Adds to a run's folder, which has its metrics.json: pictures of the first set, summary.md and report.html.

    Of images before_after_*.png and bits_*.png, of video reconstruction_*.png; in pictures/ what report.html shows.
    """
    names: list[str] = []
    if result.prepared.sets and result.task.name == "sr":
        from qsci_plugins.report.image_pictures import draw_images

        names = draw_images(result, folder)
    elif result.prepared.sets:
        from qsci_plugins.report.video_pictures import draw_scenes

        names = draw_scenes(result, folder)
    write_text(folder / "summary.md", summary(result.metrics, names))
    write_page(folder / REPORT_FILE, [run_content(folder)], progress or Progress())


def write_page(file: Path, contents: Sequence[PageContent], progress: Progress, needed: bool = False) -> None:
    """Writes report.html, complete or not at all; a line to `progress` where a package for it is missing.

    That is an error, MissingExtraError, where the page is what is `needed`.
    """
    try:
        text = _rendered(contents)
    except ModuleNotFoundError as error:
        explained = missing_extra(error)
        if needed or not isinstance(explained, MissingExtraError):
            raise explained from None
        progress.note(f"{file.name} was not written: {explained}")
        return
    write_text(file, text.encode("utf-8", "backslashreplace").decode("utf-8"))


def run_content(folder: Path, name: str = "") -> PageContent:
    """Of the output of `qsci run`, `quantize` or `train`. Raises UserError for a folder without a whole metrics.json."""
    from qsci_plugins.pipeline.metrics import read_metrics
    from qsci_plugins.pipeline.output import METRICS_FILE, RECIPE_FILE
    from qsci_plugins.report.pictures import PICTURES

    metrics = read_metrics(folder / METRICS_FILE)
    file = folder / RECIPE_FILE
    recipe = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
    pictures: Sequence[Picture] = ()
    if (folder / PICTURES).is_dir():
        from qsci_plugins.report.pictures import read_pictures

        pictures = read_pictures(folder)
    data = {"name": name, "metrics": metrics, "recipe": recipe}
    try:
        highlights, sections = _highlights(metrics), _sections(name, metrics, recipe)
        return PageContent(name, heading(metrics), highlights, sections, data, pictures, about(metrics))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UserError(f"{folder / METRICS_FILE} lacks what a run writes ({error!r}); run the recipe again") from None


def _highlights(metrics: Mapping[str, Any]) -> list[tuple[str, str]]:
    """A number, and what it is."""
    found = []
    for name, forms in list(metrics["sets"].items())[:1]:
        ours = forms.get("openvino") or forms.get("torch") or forms.get("float")
        plain = forms.get("float", {}).get("psnr")
        if ours["psnr"] is not None:
            loss = (
                ""
                if plain is None or metrics["scheme"] is None
                else f"; float {plain:.2f}, {plain - ours['psnr']:.2f} lost"
            )
            found.append(
                (f"{ours['psnr']:.2f} dB", f"{'PSNR-Y' if metrics['task'] == 'sr' else 'PSNR'} on {name}{loss}")
            )
        if ours.get("fab") is not None and metrics["scheme"] is not None:
            found.append((f"{ours['fab']:.2f} bits", f"mean of activations (FAB) on {name}"))
    rows = {row["name"]: row for row in (metrics["latency"] or {}).get("rows", ())}
    ours, plain = (rows.get(key, {}).get("median_ms") for key in ("ours", "fp32"))
    if ours and plain:
        found.append((f"{ours / plain:.2f} of fp32", f"time of a tile: {ours:.1f} of {plain:.1f} ms"))
    if metrics["operations"]:
        counts = [metrics["operations"][key]["weight_activation_bitops"] for key in ("quantized", "float")]
        found.append(
            (f"{counts[0] / 1e12:.2f} TBitOPs", f"weight x activation bits; {counts[0] / counts[1]:.3f} of float")
        )
    return found


def _sections(name: str, metrics: Mapping[str, Any], recipe: str) -> list[PageSection]:
    task, latency, training = metrics["task"], metrics["latency"], metrics["training"]
    found = []
    if metrics["sets"]:
        tables = [Table("", quality_rows(metrics["sets"], task, metrics["network"]["scale"]))]
        if (patches := patch_rows(metrics["sets"]))[1]:
            tables.append(Table("Correlation of a patch's mean gradient and its FAB, in torch", patches))
        tables.append(Table("Every picture" if task == "sr" else "Every scene", _pieces(metrics["sets"]), folded=True))
        found.append(
            PageSection("quality", "Quality", [Block(name, tables=tables, notes=[MEASURED[task].replace("`", "")])])
        )
    if metrics["bits"]:
        found.append(PageSection("bits", "Bits and loss by layer", [_bits(name, metrics)]))
    if latency and latency["rows"]:
        height, width = latency["tile"]
        title = f"One {width}x{height} tile, {latency['threads']} threads"
        failed = [f"{row['title']} fails: {row['failed']}" for row in latency["rows"] if "failed" in row]
        tables = [Table(title, latency_rows(latency["rows"]))]
        found.append(
            PageSection("latency", "Latency", [Block(name, ("latency", latency["rows"], title), tables, notes=failed)])
        )
        found.append(PageSection("nodes", "Precision of every node", [_nodes(name, latency)]))
    if training and training["log"]:
        log = training["log"]
        keys = list(log[0])
        rows = [[_short(row.get(key)) for key in keys] for row in log]
        title = "Training" if task == "sr" else "Training, all phases"
        block = Block(name, ("curves", log, title), [Table("Means between two checkpoints", (keys, rows), folded=True)])
        found.append(PageSection("training", "Training", [block]))
    tables = [Table("Seconds", seconds_rows(metrics["seconds"], metrics["machine"].get("devices", {})))]
    if metrics["operations"]:
        size = "x".join(str(side) for side in reversed(metrics["operations"]["input"]))
        tables.insert(0, Table(f"Operations for an input of {size}", operation_rows(metrics["operations"])))
    found.append(PageSection("cost", "Operations and time", [Block(name, tables=tables)]))
    if recipe:
        found.append(PageSection("recipe", "Recipe", [Block(name, code=recipe)]))
    found.append(PageSection("machine", "Machine and versions", [machine_block(name, metrics["machine"])]))
    return found


def _pieces(sets: Mapping[str, Any]) -> Rows:
    rows = []
    for title, forms in sets.items():
        for form, numbers in forms.items():
            for piece, scores in numbers["pieces"].items():
                cells = [scores.get("psnr"), scores.get("ssim"), scores.get("fab")]
                rows.append([f"{title} {piece}: {FORMS.get(form, form)}", *map(_short, cells)])
    return ["picture: form", "PSNR dB", "SSIM", "FAB bits"], rows


def _bits(name: str, metrics: Mapping[str, Any]) -> Block:
    bits, errors = metrics["bits"], metrics.get("layer_errors")
    header, rows = ["layer", "weight bits", "activation bits, mean"], []
    for layer, widths in bits.items():
        rows.append([layer, f"{widths['weight']:.0f}", f"{widths['activation']:.2f}"])
        if errors:
            rows[-1].append(f"{_share(errors, layer):.1f}" if layer in errors["layers"] else "")
    notes = []
    if errors:
        header.append("% of the error")
        notes.append(
            "The part of the mean squared error against the float output that comes with a layer's quantizers, on a few"
            " calibration inputs and ahead of any training."
        )
        if len(errors["layers"]) < len(bits):
            notes.append(f"Measured for {len(errors['layers'])} of {len(bits)} layers, for want of time.")
    tables = [Table("Every layer", (header, rows), folded=True)]
    if metrics["float_layers"]:
        left = [[layer, reason] for layer, reason in metrics["float_layers"].items()]
        tables.append(Table("Left in float", (["layer", "reason"], left)))
    return Block(name, ("bits", bits, errors, "Bits and loss by layer"), tables, notes=notes)


def _share(errors: Mapping[str, Any], layer: str) -> float:
    return 100 * float(errors["layers"][layer]) / errors["whole"] if errors["whole"] else 0.0


def _nodes(name: str, latency: Mapping[str, Any]) -> Block:
    kinds = [
        [node["type"], node["input"], node["output"], str(node["count"])] for node in latency.get("precisions") or ()
    ]
    tables = [Table("As the CPU's execution graph tells", (["node", "takes", "gives", "count"], kinds))]
    if nodes := latency.get("nodes"):
        rows = [[node["name"], node["type"], node["input"], node["output"]] for node in nodes]
        tables.append(
            Table(f"All {len(rows)} nodes, in order", (["name", "node", "takes", "gives"], rows), folded=True)
        )
    return Block(name, tables=tables)


def machine_block(name: str, machine: Mapping[str, Any]) -> Block:
    """A machine as `machine.describe_machine` says it, and the devices of a run's steps."""
    rows = []
    for key, value in machine.items():
        named = sorted({each for listed in value.values() for each in listed}) if key == "devices" else [str(value)]
        rows.append([key.replace("_gib", ", GiB"), ", ".join(named)])
    return Block(name, tables=[Table("", (["", ""], rows))])


def _short(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _drawn(block: Block) -> str:
    from qsci_plugins.report.charts import CHARTS

    kind, *values = block.chart
    return CHARTS[kind](*values)


def _rendered(contents: Sequence[PageContent]) -> str:
    import jinja2
    from markupsafe import Markup

    pictures: list[Picture] = []
    uris: list[list[str]] = []
    note = ""
    if any(content.pictures for content in contents):
        from qsci_plugins.report.pictures import embedded, merged

        pictures = merged([(content.name, content.pictures) for content in contents])
        uris, note = embedded(pictures, _PICTURE_BUDGET)
    described = [picture.described() for picture in pictures]
    data = {"version": 1, "runs": [content.data for content in contents], "pictures": described}
    style, script = _asset("report.css"), _asset("report.js")
    environment = jinja2.Environment(
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    return environment.from_string(_asset("report.html.jinja")).render(
        contents=contents,
        sections=[
            (
                section,
                [
                    (block, Markup(_drawn(block) if block.chart and place < _CHARTED else ""))
                    for place, block in enumerate(section.blocks)
                ],
            )
            for section in _side_by_side(contents)
        ],
        pictures=list(zip(described, uris, [picture.legend for picture in pictures], strict=True)),
        picture_note=note,
        # an element's end, a comment's beginning or an entity cannot stand in it
        data=Markup(
            json.dumps(data, ensure_ascii=True).translate({ord(mark): f"\\u{ord(mark):04x}" for mark in "<>&"})
        ),
        style=Markup(style),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii"),
    )


def _side_by_side(contents: Sequence[PageContent]) -> Iterator[PageSection]:
    """Every section once, in the first run's order, with the blocks of all runs."""
    sections = [section for content in contents for section in content.sections]
    for key in dict.fromkeys(section.key for section in sections):
        same = [section for section in sections if section.key == key]
        yield PageSection(key, same[0].title, [block for section in same for block in section.blocks])


@cache
def _asset(name: str) -> str:
    return (files("qsci_plugins.report") / "assets" / name).read_text(encoding="utf-8")

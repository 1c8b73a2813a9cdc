"""What a finished run shows in Markdown: summary.md, and the tables of quality and latency that commands print."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

__all__ = [
    "FORMS",
    "MEASURED",
    "Rows",
    "about",
    "bench_quality",
    "heading",
    "latency_rows",
    "latency_table",
    "operation_rows",
    "patch_rows",
    "patch_table",
    "quality_rows",
    "quality_table",
    "seconds_rows",
    "summary",
    "table",
]

#: a table: its header and its rows, of which the first column is text
Rows = tuple[list[str], list[list[str]]]

#: the forms of a network in the order in which tables show them
FORMS = {"float": "float", "torch": "quantized, torch", "openvino": "quantized, OpenVINO"}

_UNMEASURED = {
    "sr": "No benchmark set was measured; give --data DIR, or name `builtin` in the recipe's `evaluate`.",
    "sci": "No set was measured; name `builtin`, or a folder of .mat files, in the recipe's `evaluate`.",
}

#: what the numbers of quality are, by task
MEASURED = {
    "sr": "PSNR-Y and SSIM on luma, a border of `scale` pixels cropped, 8-bit rounding; FAB is the mean bit-width of the"
    " activations that the scheme quantizes.",
    "sci": "PSNR and SSIM of each frame of 0..255, neither clamped nor rounded, averaged over frames and measurements.",
}


def heading(metrics: Mapping[str, Any]) -> str:
    """What was made of what: the network, the scheme and the backend, or the training of a float network."""
    network, scheme = metrics["network"], metrics["scheme"]
    enlarged = f" x{network['scale']}" if metrics["task"] == "sr" else ""
    work = "float training" if scheme is None else f"{scheme['name']} through {metrics['backend']}"
    return f"{network['architecture']}{enlarged}, {work}"


def about(metrics: Mapping[str, Any]) -> str:
    """The weights, the scheme's settings and, of video, the shortcuts."""
    set_ = {key: value for key, value in (metrics["scheme"] or {}).items() if key != "name" and value is not None}
    settings = ", ".join(f"{key} {value}" for key, value in set_.items())
    scheme = "" if metrics["scheme"] is None else f" Scheme: {settings}."
    shortcuts = (
        "" if metrics["task"] == "sr" else f" Shortcuts: {', '.join(metrics['network']['shortcuts']) or 'none'}."
    )
    return f"Weights: {metrics['network']['weights'] or 'random'}.{scheme}{shortcuts}"


def summary(metrics: Mapping[str, Any], pictures: Sequence[str] = ()) -> str:
    """Markdown of the content of a run's metrics.json (version 2); `pictures` are file names beside it.

    The bits of every layer and the precision of every node are in report.html and in metrics.json.
    """
    parts = [
        f"# {heading(metrics)}",
        about(metrics),
        quality_section(metrics["sets"], metrics["task"], metrics["network"]["scale"]),
        _operations(metrics["operations"]),
        _seconds(metrics["seconds"], metrics["machine"].get("devices", {})),
        _latency(metrics["latency"]),
        _float_layers(metrics.get("float_layers")),
        _machine(metrics["machine"]),
        *(f"![{name}]({name})" for name in pictures),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def latency_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Milliseconds of one tile and the share of OpenVINO's fp32; where measured, tiles per second, memory, size, PSNR.

    Below the table stands why a row has no numbers, or not all.
    """
    header, lines = latency_rows(rows)
    reasons = [f"\n\n{row['title']} fails: {row['failed']}" for row in rows if "failed" in row]
    reasons += [f"\n\n{row['title']}: {cut}" for row in rows for cut in row.get("cut", ())]
    return table(header, lines) + "".join(reasons)


def latency_rows(rows: Sequence[Mapping[str, Any]]) -> Rows:
    """The cells of `latency_table`."""
    reference = next((row["median_ms"] for row in rows if row["name"] == "fp32"), None)
    measured = [row for row in rows if "failed" not in row]
    sets = list(dict.fromkeys(name for row in measured for name in bench_quality(row)))
    keys = [(key, divisor, title) for key, divisor, title in _MORE if measured and key in measured[0]]
    lines = []
    for row in rows:
        if "failed" in row:
            lines.append([row["title"], "fails", *[""] * (3 + len(keys) + len(sets))])
            continue
        share = "" if not reference else f"{row['median_ms'] / reference:.2f}"
        quality = [_decibels(bench_quality(row), name) for name in sets]
        milliseconds = [f"{row[key]:.1f}" for key in ("median_ms", "fast_ms", "slowest_ms")]
        more = [_measured(row[key], divisor) for key, divisor, _ in keys]
        lines.append([row["title"], *milliseconds, share, *more, *quality])
    more = [title for _, _, title in keys]
    header = ["form", "median ms", "fastest fifth", "slowest", "of fp32", *more, *(f"{name} dB" for name in sets)]
    return header, lines


#: what `qsci bench` measures besides: the key, its unit, its title
_MORE = (
    ("tiles_per_second", 1, "tiles/s"),
    ("peak_mib", 1, "peak MiB"),
    ("file_bytes", 2**20, "file MiB"),
    ("export_seconds", 1, "export s"),
)


def bench_quality(row: Mapping[str, Any]) -> Mapping[str, float | None]:
    """The decibels of a row of `qsci bench` by set (of images on Y), None for equal pictures; none of a row of a run."""
    return row.get("psnr") or {}


def _decibels(quality: Mapping[str, float | None], name: str) -> str:
    decibels = quality.get(name)
    return "" if name not in quality else "equal" if decibels is None else f"{decibels:.2f}"


def _measured(value: float | None, unit: float) -> str:
    return "" if value is None else f"{value / unit:.1f}"


def _operations(operations: Mapping[str, Any] | None) -> str:
    """The named counts of a run's `operations`."""
    if operations is None:
        return ""
    *frames, height, width = operations["input"]
    of = "".join(f" of {count} frames" for count in frames)
    return f"## Operations for an input of {width}x{height}{of}\n\n{table(*operation_rows(operations))}"


def operation_rows(operations: Mapping[str, Any]) -> Rows:
    """Every named count, float and quantized."""
    full, quantized = operations["float"], operations["quantized"]
    rows = [
        [name, f"{full[key] / 1e9:.2f} G", f"{quantized[key] / 1e9:.2f} G", f"{quantized[key] / full[key]:.3f}"]
        for key, name in _MEASURES.items()
    ]
    return ["definition", "float", "quantized", "share"], rows


_MEASURES = {
    "macs": "multiply-accumulates",
    "cadyq_bitops": "cadyq_bitops: 8/32 FAB/32 of quantized layers",
    "qsci_ops": "qsci_ops: 8 bits 1/4, 4 bits 1/8, ...",
    "weight_activation_bitops": "weight bits x activation bits",
}


def _seconds(seconds: Mapping[str, float], devices: Mapping[str, Sequence[str]]) -> str:
    measured = devices.get("measuring", ())
    where = f"\n\nMeasured in torch on {', '.join(measured)}." if any(name != "cpu" for name in measured) else ""
    return f"## Time\n\n{table(*seconds_rows(seconds, devices))}{where}"


def seconds_rows(seconds: Mapping[str, float], devices: Mapping[str, Sequence[str]]) -> Rows:
    """How long each stage took, and where it ran, if any was not on the CPU."""
    rows = [[stage.replace("_", "-"), f"{value:.1f}"] for stage, value in seconds.items()]
    if all(name == "cpu" for names in devices.values() for name in names):
        return ["stage", "seconds"], rows
    placed = [[*row, ", ".join(devices.get(stage, ()))] for row, stage in zip(rows, seconds, strict=True)]
    return ["stage", "seconds", "on"], placed


def _latency(latency: Mapping[str, Any] | None) -> str:
    if not latency:
        return ""
    height, width = latency["tile"]
    title = f"## Latency of one {width}x{height} tile, {latency['threads']} threads"
    return f"{title}\n\n{latency_table(latency['rows'])}"


def _float_layers(reasons: Mapping[str, str] | None) -> str:
    """The layers that the recipe places and that stayed float, and why."""
    if not reasons:
        return ""
    return f"## Layers left in float\n\n{table(['layer', 'reason'], [[*row] for row in reasons.items()])}"


def _machine(machine: Mapping[str, Any]) -> str:
    """What the run was measured on."""
    versions = ", ".join(f"{key} {value}" for key, value in machine.items() if key not in _HARDWARE)
    return (
        f"Measured on {machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB, "
        f"{machine['system']}; {versions}."
    )


_HARDWARE = {"processor", "cores", "memory_gib", "system", "devices"}


def quality_section(sets: Mapping[str, Any], task: str, scale: int) -> str:
    """The table of all sets, what its numbers mean, and the correlation of patches and bits where that was measured."""
    if not sets:
        return _UNMEASURED[task]
    parts = [f"## Quality\n\n{quality_table(sets, task, scale)}\n\n{MEASURED[task]}", patch_table(sets)]
    return "\n\n".join(part for part in parts if part)


def quality_table(sets: Mapping[str, Any], task: str = "sr", scale: int | None = None) -> str:
    """PSNR, its loss to float, SSIM and FAB of every form on every set; of video scene by scene, with the share of float."""
    return table(*quality_rows(sets, task, scale))


def quality_rows(sets: Mapping[str, Any], task: str = "sr", scale: int | None = None) -> Rows:
    """The cells of `quality_table`."""
    rows = []
    for title, numbers, reference in _video_rows(sets) if task == "sci" else _image_rows(sets, scale):
        psnr, ssim, fab = (numbers.get(key) for key in ("psnr", "ssim", "fab"))
        known = reference is not None and psnr is not None
        if task == "sci":
            loss = f"{100 * psnr / reference:.2f} %" if known and psnr is not None else ""
        else:
            loss = _signed(reference - psnr) if known and psnr is not None and reference is not None else ""
        cells = ["equal" if psnr is None else f"{psnr:.2f}", loss]
        rows.append([title, *cells, "" if ssim is None else f"{ssim:.4f}", "" if fab is None else f"{fab:.2f}"])
    columns = ["scene: form", "PSNR dB", "of float"] if task == "sci" else ["set: form", "PSNR-Y dB", "loss dB"]
    return [*columns, "SSIM", "FAB bits"], rows


#: a row's title, its numbers, and the PSNR of the float network there (None in its own row)
_Row = tuple[str, Mapping[str, Any], float | None]


def _image_rows(sets: Mapping[str, Any], scale: int | None) -> Iterator[_Row]:
    enlarged = "" if scale is None else f" x{scale}"
    for name, forms in sets.items():
        reference = forms.get("float", {}).get("psnr")
        for form, title in FORMS.items():
            if form in forms:
                yield f"{name}{enlarged}: {title}", forms[form], None if form == "float" else reference


def _video_rows(sets: Mapping[str, Any]) -> Iterator[_Row]:
    for name, forms in sets.items():
        plain = forms.get("float", {})
        for form, title in FORMS.items():
            if form not in forms:
                continue
            mean = {"mean": forms[form]} if len(forms[form]["pieces"]) > 1 else {}
            for scene, numbers in {**forms[form]["pieces"], **mean}.items():
                there = plain if scene == "mean" else plain.get("pieces", {}).get(scene, {})
                yield f"{name} {scene}: {title}", numbers, None if form == "float" else there.get("psnr")


def patch_table(sets: Mapping[str, Any]) -> str:
    """Whether busier patches got more bits, where the network ran patch by patch."""
    header, rows = patch_rows(sets)
    if not rows:
        return ""
    title = "Correlation of a patch's mean gradient and its FAB, over all patches of a set (torch runs patch by patch):"
    return f"{title}\n\n{table(header, rows)}"


def patch_rows(sets: Mapping[str, Any]) -> Rows:
    """The cells of `patch_table`."""
    rows = []
    for name, forms in sets.items():
        patches = forms.get("torch", {}).get("patches")
        if patches:
            cells = ["-" if value is None else f"{value:.2f}" for value in patches["gradient_and_fab"].values()]
            rows.append([name, str(patches["count"]), *cells])
    return ["set", "patches", "Spearman", "Pearson"], rows


def _signed(decibels: float) -> str:
    return f"{round(decibels, 2) + 0.0:.2f}"  # no minus in front of a zero


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table whose columns line up in plain text too; all but the first are right-aligned."""
    cells = [list(header), *(list(row) for row in rows)]
    widths = [max(3, *(len(row[column]) for row in cells)) for column in range(len(header))]
    rule = [f"{'-' * (width - 1)}{'-' if column == 0 else ':'}" for column, width in enumerate(widths)]

    def line(row: Sequence[str]) -> str:
        padded = (
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        return f"| {' | '.join(padded)} |"

    return "\n".join([line(cells[0]), line(rule), *(line(row) for row in cells[1:])])

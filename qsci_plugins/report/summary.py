"""What a finished run shows: summary.md and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from qsci_plugins.files import write_text
from qsci_plugins.pipeline.run import RunResult
from qsci_plugins.report.quality import quality_section, table

__all__ = ["bench_quality", "bench_table", "cost_table", "latency_table", "summary", "tiled_table", "write_report"]


def summary(metrics: Mapping[str, Any], pictures: Sequence[str] = ()) -> str:
    """Markdown of the content of a run's metrics.json (version 2); `pictures` are file names beside it."""
    network, scheme, task = metrics["network"], metrics["scheme"], metrics["task"]
    settings = ", ".join(f"{key} {value}" for key, value in scheme.items() if key != "name")
    enlarged = f" x{network['scale']}" if task == "sr" else ""
    shortcuts = "" if task == "sr" else f" Shortcuts: {', '.join(network['shortcuts']) or 'none'}."
    parts = [
        f"# {network['architecture']}{enlarged}, {scheme['name']} through {metrics['backend']}",
        f"Weights: {network['weights'] or 'random'}. Scheme: {settings}.{shortcuts}",
        quality_section(metrics["sets"], task, network["scale"]),
        _operations(metrics["operations"]),
        _seconds(metrics["seconds"], metrics["machine"].get("devices", {})),
        _latency(metrics["latency"]),
        _precisions(metrics["latency"]),
        _bits(metrics["bits"]),
        _float_layers(metrics.get("float_layers")),
        _machine(metrics["machine"]),
        *(f"![{name}]({name})" for name in pictures),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def latency_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Milliseconds of one tile and the share of OpenVINO's fp32; where measured, tiles per second, memory, size, PSNR.

    Below the table stands why a row has no numbers, or not all.
    """
    reference = next((row["median_ms"] for row in rows if row["name"] == "fp32"), None)
    measured = [row for row in rows if "failed" not in row]
    sets = list(dict.fromkeys(name for row in measured for name in bench_quality(row)))
    keys = [(key, divisor, title) for key, divisor, title in _MORE if measured and key in measured[0]]
    lines, reasons = [], []
    for row in rows:
        if "failed" in row:
            lines.append([row["title"], "fails", *[""] * (3 + len(keys) + len(sets))])
            reasons.append(f"\n\n{row['title']} fails: {row['failed']}")
            continue
        share = "" if not reference else f"{row['median_ms'] / reference:.2f}"
        quality = [_decibels(bench_quality(row), name) for name in sets]
        milliseconds = [f"{row[key]:.1f}" for key in ("median_ms", "fast_ms", "slowest_ms")]
        more = [_measured(row[key], divisor) for key, divisor, _ in keys]
        lines.append([row["title"], *milliseconds, share, *more, *quality])
        reasons.extend(f"\n\n{row['title']}: {cut}" for cut in row.get("cut", ()))
    more = [title for _, _, title in keys]
    header = ["form", "median ms", "fastest fifth", "slowest", "of fp32", *more, *(f"{name} dB" for name in sets)]
    return table(header, lines) + "".join(reasons)


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


def bench_table(bench: Mapping[str, Any]) -> str:
    """One model's latency table under a title that says what was timed."""
    height, width = bench["tile"]
    frames = f" of {bench['frames']} frames" if bench.get("frames") else ""
    runs = f"{bench['threads']} threads, {bench['repeats']} runs"
    title = f"{bench['model']}: one {width}x{height} tile{frames}, {runs}"
    return f"{title}\n\n{latency_table(bench['rows'])}"


def _operations(operations: Mapping[str, Any] | None) -> str:
    """The named counts of a run's `operations`."""
    if operations is None:
        return ""
    full, quantized = operations["float"], operations["quantized"]
    *frames, height, width = operations["input"]
    rows = [
        [name, f"{full[key] / 1e9:.2f} G", f"{quantized[key] / 1e9:.2f} G", f"{quantized[key] / full[key]:.3f}"]
        for key, name in _MEASURES.items()
    ]
    of = "".join(f" of {count} frames" for count in frames)
    title = f"## Operations for an input of {width}x{height}{of}"
    return f"{title}\n\n{table(['definition', 'float', 'quantized', 'share'], rows)}"


_MEASURES = {
    "macs": "multiply-accumulates",
    "cadyq_bitops": "cadyq_bitops: 8/32 FAB/32 of quantized layers",
    "qsci_ops": "qsci_ops: 8 bits 1/4, 4 bits 1/8, ...",
    "weight_activation_bitops": "weight bits x activation bits",
}


def _seconds(seconds: Mapping[str, float], devices: Mapping[str, Sequence[str]]) -> str:
    """How long each stage took, and where it ran, if any was not on the CPU."""
    rows = [[stage.replace("_", "-"), f"{value:.1f}"] for stage, value in seconds.items()]
    if all(name == "cpu" for names in devices.values() for name in names):
        return f"## Time\n\n{table(['stage', 'seconds'], rows)}"
    placed = [[*row, ", ".join(devices.get(stage, ()))] for row, stage in zip(rows, seconds, strict=True)]
    measured = "" if not devices.get("measuring") else f"\n\nMeasured in torch on {', '.join(devices['measuring'])}."
    return f"## Time\n\n{table(['stage', 'seconds', 'on'], placed)}{measured}"


def _latency(latency: Mapping[str, Any] | None) -> str:
    if not latency:
        return ""
    height, width = latency["tile"]
    title = f"## Latency of one {width}x{height} tile, {latency['threads']} threads"
    return f"{title}\n\n{latency_table(latency['rows'])}"


def _precisions(latency: Mapping[str, Any] | None) -> str:
    """What the exported graph really runs in, as the CPU's execution graph tells."""
    if not latency or not latency.get("precisions"):
        return ""
    rows = [[node["type"], node["input"], node["output"], str(node["count"])] for node in latency["precisions"]]
    return f"## What ours runs in\n\n{table(['node', 'takes', 'gives', 'count'], rows)}"


def _bits(bits: Mapping[str, Mapping[str, float]]) -> str:
    """The bits of every layer."""
    rows = [[name, f"{layer['weight']:.0f}", f"{layer['activation']:.2f}"] for name, layer in bits.items()]
    return f"## Bits by layer\n\n{table(['layer', 'weight', 'activation, mean'], rows)}"


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


_TIMED = {"training": "training step", "evaluation": "evaluation", "fine_tuning": "fine-tuning step"}


def cost_table(cost: Mapping[str, Any]) -> str:
    """Ratios to float by scheme and backend, with the milliseconds or MiB of both."""
    rows = []
    for row in cost["rows"]:
        cells = [
            f"{row[key]['ratio']:.2f} ({row[key]['quantized_ms']:.0f} / {row[key]['float_ms']:.0f} ms)"
            for key in _TIMED
        ]
        memory = row["memory"]
        cells.append(
            f"{memory['ratio']:.2f} ({memory['quantized_mib']:.0f} / {memory['float_mib']:.0f} MiB)" if memory else "-"
        )
        rows.append([f"{row['scheme']} in {row['backend']}", *cells])
    network, device = cost["network"], cost.get("device", "cpu")
    on = "" if device == "cpu" else f", {device}"
    title = (
        f"{network['architecture']} x{network['scale']}, {network['blocks']} blocks of {network['width']} channels, "
        f"{cost['threads']} threads{on}, {cost['rows'][0]['form']} form: quantized / float"
    )
    return f"{title}\n\n{table(['scheme', *_TIMED.values(), 'fine-tuning memory'], rows)}"


def tiled_table(bench: Mapping[str, Any]) -> str:
    """One model's times for a large image in tiles, under a title that says what was timed."""
    height, width = bench["size"]
    title = f"{bench['model']}: one {width}x{height} image, {bench['threads']} threads, {bench['repeats']} runs"
    lines = []
    for row in bench["rows"]:
        tiles = f"{row['tiles']} of {row['tile'][1]}x{row['tile'][0]}"
        if skipping := row.get("skipping"):
            tiles += f", {skipping} skip blocks"
        milliseconds = [f"{row[key]:.0f}" for key in ("median_ms", "fast_ms", "slowest_ms")]
        peak = "" if row["peak_mib"] is None else f"{row['peak_mib']:.0f}"
        lines.append([row["title"], tiles, f"{row['computed']:.3f}", *milliseconds, f"{row['ratio']:.3f}", peak])
    header = ["form", "tiles", "pixels", "median ms", "fastest fifth", "slowest", "of one piece", "peak MiB"]
    return f"{title}\n\n{table(header, lines)}"


def write_report(result: RunResult, folder: Path) -> None:
    """Adds summary.md and pictures of the first set to a run's folder.

    Of images before_after_*.png and bits_*.png, of video reconstruction_*.png.
    """
    if result.task.name == "sr":
        from qsci_plugins.report.image_pictures import draw_images

        names = draw_images(result, folder)
    else:
        from qsci_plugins.report.video_pictures import draw_scenes

        names = draw_scenes(result, folder)
    write_text(folder / "summary.md", summary(result.metrics, names))

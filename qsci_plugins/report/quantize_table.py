"""What `qsci quantize` made of a network, and what `qsci doctor` expects of one, as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from qsci_plugins.report.summary import table

__all__ = ["estimate_text", "quantize_table"]

#: as many layers are named
_NAMED = 4


def quantize_table(result: Mapping[str, Any], name: str) -> str:
    """The one table of a quantization: loss, latency, size, and what stayed float and why."""
    bits, backend = result["bits"], result["backend"]
    header = [name, f"{result['architecture']} x{result['scale']}, W{bits}A{bits} through {backend}"]
    own = (
        "equal"
        if result["psnr"] is None
        else f"{result['psnr']:.2f} dB (least of an image: {result['least_psnr']:.2f})"
    )
    rows = [["PSNR to its own float output", own], ["loss", _loss(result)]]
    for title, pair in result["sets"].items():
        rows.append(
            [f"PSNR-Y on {title}", f"{_decibels(pair['float'])} float, {_decibels(pair['quantized'])} quantized"]
        )
    rows.append(["latency", _latency(result["latency"])])
    size, whole = result["bytes"]["model"], result["bytes"]["float32"]
    rows.append(["size", f"{size / whole:.2f} of the float weights ({size / 2**20:.2f} of {whole / 2**20:.2f} MiB)"])
    share = result["macs_in_integers"]
    counted = "" if share is None else f", {100 * share:.1f} % of the multiply-accumulates"
    rows.append(["in integers", f"{result['layers']} layers{counted}"])
    if result["raised"]:
        rows.append(["raised to 8 bits", _names(result["raised"])])
    reasons: dict[str, list[str]] = {}
    for layer, reason in result["float"].items():
        reasons.setdefault(reason, []).append(layer)
    rows += [["float", f"{_names(layers)}: {reason}"] for reason, layers in reasons.items()]
    if not reasons:
        rows.append(["float", "no layer"])
    return table(header, rows)


def _loss(result: Mapping[str, Any]) -> str:
    on = "estimated from the line above for a network 32 dB from the truth"
    return f"{result['loss']:.3f} dB, {'measured on ' + result['truth'] if result['truth'] else on}"


def _decibels(value: float | None) -> str:
    return "equal" if value is None else f"{value:.2f}"


def _latency(latency: Mapping[str, Any]) -> str:
    height, width = latency["tile"]
    where = f"{width}x{height} tile, {latency['threads']} threads"
    if not latency["fp32"]:
        return f"{latency['ours']:.1f} ms ({where}; fp32 fails)"
    ratio = latency["ours"] / latency["fp32"]
    return f"{ratio:.2f} of fp32 ({latency['ours']:.1f} of {latency['fp32']:.1f} ms, {where})"


def _names(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_NAMED])
    return shown if len(names) <= _NAMED else f"{shown} and {len(names) - _NAMED} more"


def estimate_text(network: Mapping[str, Any]) -> str:
    """What can be quantized of a network, what not and why, and estimates, each with what it is from."""
    layers = network["layers"]
    rows = [["can be quantized", f"{len(layers)} layers"]]
    if network["not_called"]:
        rows.append(["cannot", f"{_names(network['not_called'])}: the network does not call it"])
    if network["constant"]:
        rows.append(["stays float", f"{_names(network['constant'])}: computed once, it reads the same for every image"])
    if network["products"]:
        rows.append(["cannot", f"{_names(network['products'])}: no convolution or linear layer computes it"])
    share = network["macs_in_integers"]
    rows.append(["in integers", f"{100 * share:.1f} % of the multiply-accumulates, counted"])
    rows.append(
        ["estimated loss", f"{network['loss']:.2f} dB for a network 32 dB from the truth, from the next line"],
    )
    rows.append(
        ["estimated PSNR to its float output", f"{network['psnr']:.1f} dB, at 8 bits by plain ranges on one photo"]
    )
    rows.append(["estimated latency", f"{network['latency']:.2f} of fp32, from the share in integers alone"])
    small, whole = network["bytes"]["int8"], network["bytes"]["float32"]
    rows.append(["estimated size", f"{small / 2**20:.2f} of {whole / 2**20:.2f} MiB, from the weights' elements"])
    worst = sorted(layers, key=lambda name: min(layers[name]["weight_db"], layers[name]["input_db"]))
    for name in worst[:_NAMED]:
        layer = layers[name]
        text = f"weight {layer['weight_db']:.0f} dB, input {layer['input_db']:.0f} dB above its rounding"
        rows.append([f"most rounded: {name}", f"{text}; {100 * layer['macs']:.1f} % of the work"])
    title = f"{network['architecture']} x{network['scale']}"
    return table([title, "estimates are no measurements: `qsci quantize` measures"], rows)

"""metrics.json: what a run measured, in one shape for images and video, quantization and float training."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qsci_plugins.errors import UserError
from qsci_plugins.files import write_text
from qsci_plugins.machine import describe_machine
from qsci_plugins.pipeline.journal import training_log
from qsci_plugins.pipeline.output import METRICS_FILE
from qsci_plugins.pipeline.task import Loaded, Prepared, Trainable

__all__ = ["quantization_metrics", "read_metrics", "training_metrics", "write_metrics"]

_VERSION = 2


def quantization_metrics(
    prepared: Prepared,
    work: Path,
    seconds: Mapping[str, float],
    *,
    sets: Mapping[str, Any],
    operations: Mapping[str, Any],
    latency: Mapping[str, Any] | None,
    bits: Mapping[str, tuple[float, float]],
) -> dict[str, Any]:
    """The content of metrics.json, version 2, of a quantization run; its keys are these, and no key is ever absent.

    task: "sr" or "sci"; kind: "quantize" or "train"; network: architecture, weights, settings, scale, shortcuts; sets: by
    set and form psnr, ssim, fab and pieces, as in `measure`; operations: input, float, quantized; latency: tile, threads,
    repeats, rows, precisions; training: steps, examples (how many photos or clips it drew from; None where it had no
    labels) and log (step and means of scalars); seconds by step; bits by layer, weight and activation; machine.
    None: latency where nothing is exported or timed, training where there is none; and of a float training the backend,
    scheme, operations, latency and bits, which it has not.
    """
    recipe = prepared.recipe
    training = None
    if recipe.train is not None:
        log = training_log(work)
        training = {"steps": log[-1]["step"] if log else 0, "examples": _count(prepared), "log": log}
    return {
        **_head(prepared, "quantize"),
        "backend": recipe.backend,
        "scheme": recipe.scheme,
        "sets": sets,
        "operations": operations,
        "latency": latency,
        "training": training,
        "seconds": _rounded(seconds),
        "bits": {name: {"weight": weight, "activation": activation} for name, (weight, activation) in bits.items()},
        "machine": describe_machine(),
    }


def training_metrics(
    trainable: Trainable, work: Path, seconds: Mapping[str, float], *, sets: Mapping[str, Any], steps: int
) -> dict[str, Any]:
    """The content of metrics.json of a float training; see `quantization_metrics`."""
    return {
        **_head(trainable, "train"),
        "backend": None,
        "scheme": None,
        "sets": sets,
        "operations": None,
        "latency": None,
        "training": {"steps": steps, "examples": _count(trainable), "log": training_log(work)},
        "seconds": _rounded(seconds),
        "bits": None,
        "machine": describe_machine(),
    }


def write_metrics(work: Path, metrics: Mapping[str, Any]) -> None:
    """Writes metrics.json into a run's folder. Raises ValueError for a NaN or an infinity, which JSON does not have."""
    write_text(work / METRICS_FILE, json.dumps(metrics, indent=2, allow_nan=False) + "\n")


def read_metrics(file: Path) -> dict[str, Any]:
    """The content of a metrics.json as version 2 has it; files of version 1 are converted.

    What those do not tell is None. Raises UserError for a file that cannot be read, or is of a newer version.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        version = content["version"]
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}; give the output folder of a run") from None
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{file} is damaged or not a run's; run the recipe again") from None
    if version == 1:
        from qsci_plugins.pipeline.old_metrics import from_version_1

        return from_version_1(content)
    if version != _VERSION:
        raise UserError(f"{file} has version {version}, this package reads up to {_VERSION}; update qsci-plugins")
    return dict(content)


def _head(loaded: Loaded, kind: str) -> dict[str, Any]:
    network, recipe = loaded.float_network, loaded.recipe
    return {
        "version": _VERSION,
        "task": network.task,
        "kind": kind,
        "network": {
            "architecture": network.architecture,
            "weights": recipe.model.weights,
            "settings": network.settings,
            "scale": network.scale,
            "shortcuts": list(getattr(recipe, "shortcuts", [])),
        },
    }


def _count(trainable: Trainable) -> int | None:
    """Of how many photos, or beginnings of clips in the last phase, a training draws."""
    examples = trainable.examples
    if examples is None:
        return None
    return len(examples[-1]) if isinstance(examples, list) else len(examples)


def _rounded(seconds: Mapping[str, float]) -> dict[str, float]:
    return {step: round(value, 2) for step, value in seconds.items()}

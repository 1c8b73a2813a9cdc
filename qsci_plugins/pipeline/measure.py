"""One table for the forms of a network, whatever its task: PSNR, SSIM and FAB of every set, form and piece."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from qsci_plugins.pipeline.task import PieceResult, PieceSet, Task
from qsci_plugins.progress import Progress

__all__ = ["means", "measure"]


def measure(task: Task, forms: Mapping[str, Any], sets: Sequence[PieceSet], progress: Progress) -> dict[str, Any]:
    """By set and form the means over the pieces, what the form says about the set, and every piece under `pieces`.

    The numbers are `psnr` in dB (None where pictures are equal, as JSON has no infinity), `ssim` and `fab` (None where
    nobody knows), and the extras of `PieceResult`, of which those that are numbers have means too.
    """
    table: dict[str, Any] = {}
    for pieces in sets:
        table[pieces.name] = {}
        for name, form in forms.items():
            results = []
            with progress.stage(f"{pieces.name}: {name}", len(pieces.pieces)) as advance:
                for done, piece in enumerate(pieces.pieces, 1):
                    results.append(task.score(form, piece))
                    advance(done, f"{results[-1].psnr:.2f} dB")
            summary = form.summary() if form.summary else {}
            table[pieces.name][name] = {
                **means(results),
                **summary,
                "pieces": {result.name: _numbers(result) for result in results},
            }
    return table


def means(results: Sequence[PieceResult]) -> dict[str, Any]:
    """The means over pieces, as `measure` has them."""
    numbers: dict[str, Any] = {
        "psnr": _finite(_mean(result.psnr for result in results)),
        "ssim": _mean(result.ssim for result in results),
        "fab": _mean(result.fab for result in results),
    }
    for key in results[0].extras if results else ():
        values = [result.extras.get(key) for result in results]
        if all(isinstance(value, int | float) for value in values):
            numbers[key] = _mean(values)
    return numbers


def _numbers(result: PieceResult) -> dict[str, Any]:
    return {"psnr": _finite(result.psnr), "ssim": result.ssim, "fab": result.fab, **result.extras}


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None


def _finite(decibels: float | None) -> float | None:
    return None if decibels is None or math.isinf(decibels) else decibels

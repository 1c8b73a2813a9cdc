"""Conversion, first compile and timing of a network that nobody has tried, in a child process, which may crash."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from qsci_plugins.errors import UserError
from qsci_plugins.pipeline.child_process import Events, KilledError, child_events
from qsci_plugins.pipeline.measure import time_rows
from qsci_plugins.pipeline.output import CHECKPOINT, RECIPE_FILE
from qsci_plugins.pipeline.task import Loaded, Prepared, Task, task_of
from qsci_plugins.progress import Progress
from qsci_plugins.recipes.reading import read_recipe
from qsci_plugins.schemes.backend import load_backend

__all__ = ["export_isolated", "latency_isolated"]


#: the rows of `evaluation.baselines`
_THEIRS = {"fp32", "bf16", "nncf_int8"}
#: the one of them that is left out where a crash comes later
_SUSPECT = "nncf_int8"


def export_isolated(prepared: Prepared, work: Path, folder: Path, about: Mapping[str, Any]) -> bool:
    """Exports the network of a run's work folder, and compiles and runs it once; False where that has to be done here.

    It has to where the child cannot make the network again, and where it fails in a way that this one shall show.
    Raises UserError where OpenVINO or torch crash, and for what cannot be exported.
    """
    settings = {"folder": str(folder), "overlap": prepared.overlap, "period": prepared.period, "about": dict(about)}
    try:
        answer = _ask("export", work, settings)
    except KilledError as crash:
        what = "OpenVINO crashes compiling" if crash.step == "compile" else "torch or OpenVINO crashes converting"
        raise UserError(
            f"export: {what} {prepared.network.architecture} ({crash.signal}); try another export.openvino.tile, leave"
            " layers in float with place.float, or export nothing (mode: none)"
        ) from None
    if "refused" in answer:
        raise UserError(answer["refused"])
    return "done" in answer


def latency_isolated(task: Task, prepared: Prepared, folder: Path) -> dict[str, Any]:
    """`measure.time_rows`; what crashes is a row that says so. Raises UserError where ours does."""
    failed: dict[str, str] = {}
    tile = list(prepared.recipe.export.openvino.tile)
    with tempfile.TemporaryDirectory() as temporary:
        samples = Path(temporary) / "samples.npz"
        np.savez(samples, *task.samples(prepared))  # type: ignore[arg-type]
        while True:
            settings = {"folder": str(folder), "samples": str(samples), "tile": tile, "failed": failed}
            try:
                answer = _ask("latency", folder.parent, settings)
            except KilledError as crash:
                # what corrupts memory may crash whatever comes after it, and NNCF's default graph does with some networks
                at_fault = crash.step if crash.step in _THEIRS else _SUSPECT
                if at_fault in failed:
                    raise UserError(
                        f"latency: OpenVINO crashes running the exported network ({crash.signal})"
                    ) from None
                failed[at_fault] = f"crashes OpenVINO or NNCF ({crash.signal})"
                continue
            if "done" in answer:
                return dict(answer["done"])
            return time_rows(lambda: task.float_graph(prepared), task.samples(prepared), folder, tile)


def _ask(what: str, work: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """A child's answer: what it has done, a refusal, or nothing. Raises KilledError where it crashes."""
    answer: dict[str, Any] = {}
    request = {"what": what, "work": str(work), **settings}
    with tempfile.TemporaryDirectory() as place:
        try:
            with closing(child_events(__name__, Path(place), request, Progress())) as events:
                for event in events:
                    answer = event
        except KilledError as killed:
            if killed.signal is not None:
                raise
    return answer


def _answer(events: Events) -> dict[str, Any]:
    request = events.request
    work, folder = Path(request["work"]), Path(request["folder"])
    recipe = read_recipe(work / RECIPE_FILE)
    task = task_of(recipe)
    try:
        loaded = task.load(recipe)
    except UserError:  # such as a class that only the program that asks knows
        return {}
    if request["what"] == "export":
        events.step("export")
        _export(loaded, work, folder, request)
        events.step("compile")
        _run_once(folder, loaded.recipe.export.openvino.tile)
        return {"done": True}
    with np.load(request["samples"]) as stored:
        samples = [stored[name] for name in stored.files]
    tile, failed = request["tile"], request["failed"]
    return {"done": time_rows(lambda: task.float_graph(loaded), samples, folder, tile, failed, events.step)}


def _export(loaded: Loaded, work: Path, folder: Path, request: Mapping[str, Any]) -> None:
    from qsci_plugins.openvino.export import export
    from qsci_plugins.openvino.signature import ImageSignature

    settings, network = loaded.recipe.export.openvino, loaded.network
    quantized = load_backend(loaded.recipe.backend).load(network.module, work / CHECKPOINT)
    height, width = settings.tile
    signature = ImageSignature((height, width), network.value_range, network.scale, request["period"])
    overlap, about = request["overlap"], request["about"]
    export(quantized, network.module, folder, signature, mode=settings.mode, overlap=overlap, about=about)


def _run_once(folder: Path, tile: Sequence[int]) -> None:
    from qsci_plugins.evaluation.latency import open_exported, runner
    from qsci_plugins.machine import usable_threads

    runner(open_exported(folder, usable_threads()), (tile[0], tile[1]))()


def main(place: Path) -> None:
    """The child: answers the request that lies in the folder `place`."""
    events = Events(place)
    try:
        answer = _answer(events)
    except UserError as error:
        answer = {"refused": str(error)}
    except Exception:  # shown where it is done again
        answer = {}
    events.send(**answer)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

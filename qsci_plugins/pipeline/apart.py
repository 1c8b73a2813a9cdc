"""Conversion, first compile and timing of a network that nobody has tried, in a process that may crash."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from qsci_plugins.errors import UserError
from qsci_plugins.pipeline.measure import time_rows
from qsci_plugins.pipeline.output import CHECKPOINT, RECIPE_FILE
from qsci_plugins.pipeline.task import Loaded, Prepared, Task, task_of
from qsci_plugins.progress import quiet
from qsci_plugins.recipes.reading import read_recipe
from qsci_plugins.schemes.backend import load_backend
from qsci_plugins.telemetry import module_command

__all__ = ["CrashError", "export_apart", "latency_apart"]


#: the rows of `evaluation.baselines`
_THEIRS = {"fp32", "bf16", "nncf_int8"}
#: the one of them that is left out where a crash comes later
_SUSPECT = "nncf_int8"


class CrashError(Exception):
    """The other process was killed by a signal while it did `step`."""

    def __init__(self, step: str, code: int) -> None:
        self.step = step
        self.signal = signal.Signals(-code).name
        super().__init__(f"{step}: {self.signal}")


def export_apart(prepared: Prepared, work: Path, folder: Path, about: Mapping[str, Any]) -> bool:
    """Exports the network of a run's work folder, and compiles and runs it once; False where that has to be done here.

    It has to where the other process cannot make the network again, and where it fails in a way that this one shall show.
    Raises UserError where OpenVINO or torch crash, and for what cannot be exported.
    """
    settings = {"folder": str(folder), "overlap": prepared.overlap, "period": prepared.period, "about": dict(about)}
    try:
        answer = _ask("export", work, settings)
    except CrashError as crash:
        what = {"export": "torch or OpenVINO crashes converting", "compile": "OpenVINO crashes compiling"}[crash.step]
        raise UserError(
            f"export: {what} {prepared.network.architecture} ({crash.signal}); try another export.openvino.tile, leave"
            " layers in float with place.float, or export nothing (mode: none)"
        ) from None
    if "refused" in answer:
        raise UserError(answer["refused"])
    return "done" in answer


def latency_apart(task: Task, prepared: Prepared, folder: Path) -> dict[str, Any]:
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
            except CrashError as crash:
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
    """The answer of a new process: what it has done, a refusal, or nothing. Raises CrashError."""
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        request = {"what": what, "work": str(work), **settings}
        (place / "request.json").write_text(json.dumps(request), encoding="utf-8")
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
        ended = subprocess.run(module_command(__name__, temporary), env=environment, capture_output=True, check=False)
        if ended.returncode < 0:
            step = place / "step"
            raise CrashError(step.read_text(encoding="utf-8") if step.is_file() else what, ended.returncode)
        file = place / "answer.json"
        answer: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        return answer


def _answer(place: Path) -> dict[str, Any]:
    request = json.loads((place / "request.json").read_text(encoding="utf-8"))

    def begin(step: str) -> None:
        (place / "step").write_text(step, encoding="utf-8")

    work, folder = Path(request["work"]), Path(request["folder"])
    recipe = read_recipe(work / RECIPE_FILE)
    task = task_of(recipe)
    with quiet():
        try:
            loaded = task.load(recipe)
        except UserError:  # such as a class that only the program that asks knows
            return {}
        if request["what"] == "export":
            begin("export")
            _export(loaded, work, folder, request)
            begin("compile")
            _run_once(folder, loaded.recipe.export.openvino.tile)
            return {"done": True}
        with np.load(request["samples"]) as stored:
            samples = [stored[name] for name in stored.files]
        rows = time_rows(lambda: task.float_graph(loaded), samples, folder, request["tile"], request["failed"], begin)
        return {"done": rows}


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
    """The other process: answers the request that lies in a folder."""
    try:
        answer = _answer(place)
    except UserError as error:
        answer = {"refused": str(error)}
    except Exception:  # shown where it is done again
        answer = {}
    (place / "answer.json").write_text(json.dumps(answer), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

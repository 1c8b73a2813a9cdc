"""What running a network takes beside time: the peak memory of a process that does nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qsci_plugins.telemetry import module_command

if TYPE_CHECKING:
    from qsci_plugins.openvino.runtime import Tile

__all__ = ["held_mebibytes", "in_new_process", "peak_memory", "peak_memory_of_image"]

_STATUS = Path("/proc/self/status")


def peak_memory(
    graph: Path, weights: Path | None, tile: tuple[int, int], *, precision: str, threads: int, exact: bool = True
) -> float | None:
    """MiB that a new process held at most while it compiled an IR file and ran one tile, Python and OpenVINO included.

    `exact` is `open_graph`'s. None where the system does not tell (it needs Linux' /proc).
    """
    case = {
        "graph": str(graph),
        "weights": None if weights is None else str(weights),
        "tile": tile,
        "precision": precision,
        "threads": threads,
        "exact": exact,
    }
    return _peak(case)


def peak_memory_of_image(folder: Path, size: tuple[int, int], tile: Tile | None, threads: int) -> float | None:
    """MiB that a new process held at most while it upscaled one image (height, width) with a model folder, both images
    included. None where the system does not tell.
    """
    case = {"folder": str(folder), "size": size, "tile": tile, "threads": threads}
    return _peak(case)


def _peak(case: dict[str, Any]) -> float | None:
    found = in_new_process("qsci_plugins.evaluation.memory", case)
    return None if found is None else found["peak"]


def in_new_process(
    module: str, case: Mapping[str, Any], environment: Mapping[str, str] | None = None
) -> dict[str, float] | None:
    """MiB that `python -m module` prints for a case, both JSON objects, with further environment variables.

    None where the system does not tell what a process holds (it needs Linux' /proc). Raises RuntimeError where it fails.
    """
    if not _STATUS.is_file():
        return None
    command = module_command(module, json.dumps(case))
    variables = {**os.environ, **(environment or {})}
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"measuring the memory of {dict(case)} failed:\n{done.stderr}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _run(case: dict[str, Any]) -> float:
    if "folder" in case:
        return _run_image(case)
    from qsci_plugins.evaluation.latency import open_graph, runner

    settings = {key: case[key] for key in ("precision", "threads", "exact")}
    compiled = open_graph(case["graph"], case["weights"], **settings)
    run = runner(compiled, tuple(case["tile"]))
    for _ in range(2):
        run()
    return held_mebibytes("VmHWM")


def _run_image(case: dict[str, Any]) -> float:
    import numpy as np

    from qsci_plugins.openvino.runtime import Upscaler

    tile = tuple(case["tile"]) if isinstance(case["tile"], list) else case["tile"]
    upscaler = Upscaler(case["folder"], threads=case["threads"], precision="auto", tile=tile)
    upscaler.upscale(np.random.default_rng(0).integers(0, 256, (*case["size"], 3), dtype=np.uint8))
    return held_mebibytes("VmHWM")


def held_mebibytes(field: str) -> float:
    """MiB of this process's memory, as a field of Linux' /proc/self/status has it: VmRSS now, VmHWM at most."""
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    print(json.dumps({"peak": _run(json.loads(sys.argv[1]))}))

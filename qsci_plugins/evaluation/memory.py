"""What running a network takes beside time: the peak memory of a process that does nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qsci_plugins.telemetry import switch_off_telemetry

if TYPE_CHECKING:
    from qsci_plugins.openvino.runtime import Tile

__all__ = ["held_mebibytes", "peak_memory", "peak_memory_of_image"]

_STATUS = Path("/proc/self/status")


def peak_memory(
    graph: Path, weights: Path | None, tile: tuple[int, int], *, precision: str, threads: int
) -> float | None:
    """MiB that a new process held at most while it compiled an IR file and ran one tile, Python and OpenVINO included.

    None where the system does not tell (it needs Linux' /proc).
    """
    case = {
        "graph": str(graph),
        "weights": None if weights is None else str(weights),
        "tile": tile,
        "precision": precision,
        "threads": threads,
    }
    return _in_new_process(case, f"of {graph}")


def peak_memory_of_image(folder: Path, size: tuple[int, int], tile: Tile | None, threads: int) -> float | None:
    """MiB that a new process held at most while it upscaled one image (height, width) with a model folder, both images
    included. None where the system does not tell.
    """
    case = {"folder": str(folder), "size": size, "tile": tile, "threads": threads}
    return _in_new_process(case, f"that {folder} takes")


def _in_new_process(case: dict[str, Any], what: str) -> float | None:
    if not _STATUS.is_file():
        return None
    command = [sys.executable, "-m", "qsci_plugins.evaluation.memory", json.dumps(case)]
    done = subprocess.run(command, env=dict(os.environ), capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"measuring the memory {what} failed:\n{done.stderr}")
    return float(done.stdout.splitlines()[-1])


def _run(case: dict[str, Any]) -> float:
    if "folder" in case:
        return _run_image(case)
    from qsci_plugins.evaluation.latency import open_graph, runner

    compiled = open_graph(case["graph"], case["weights"], precision=case["precision"], threads=case["threads"])
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
    switch_off_telemetry()
    print(_run(json.loads(sys.argv[1])))

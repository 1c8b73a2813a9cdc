"""The memory of fine-tuning beside a float forward and backward, each in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from qsci_plugins.openvino.footprint import held_mebibytes
from qsci_plugins.telemetry import switch_off_telemetry

__all__ = ["measure_memory"]

_STEPS = 4
_STATUS = Path("/proc/self/status")

#: glibc gives large tensors back to the system as soon as they are freed, so that a peak is what is needed at once and
#: not what its heap happened to keep
_GIVE_BACK = {"MALLOC_MMAP_THRESHOLD_": str(2**20)}


def measure_memory(
    scheme: str, backend: str, form: str, threads: int, blocks: int, width: int
) -> dict[str, float] | None:
    """MiB that a float step and a fine-tuning step add to what the process held before, their ratio, and whole peaks.

    A fine-tuning step is all of it: the teacher's outputs and the optimizer too. None where the system does not tell
    (it needs Linux' /proc).
    """
    if not _STATUS.is_file():
        return None
    network: dict[str, Any] = {"scheme": scheme, "backend": backend, "form": form, "blocks": blocks, "width": width}
    plain, quantized = (
        _in_a_process({**network, "threads": threads, "quantized": quantized}) for quantized in (False, True)
    )
    return {
        "float_mib": round(plain["added"], 1),
        "quantized_mib": round(quantized["added"], 1),
        "ratio": round(quantized["added"] / plain["added"], 3),
        "float_process_mib": round(plain["peak"], 1),
        "quantized_process_mib": round(quantized["peak"], 1),
    }


def _in_a_process(case: dict[str, Any]) -> dict[str, float]:
    command = [sys.executable, "-m", "qsci_plugins.recipes.peak_memory", json.dumps(case)]
    environment = {**os.environ, **_GIVE_BACK}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"measuring the memory of {case} failed:\n{done.stderr}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _measured(case: dict[str, Any]) -> dict[str, float]:
    """Runs a case in this process."""
    import torch

    from qsci_plugins.recipes.costing import FINE_TUNING, quantized_reference, random_images, reference, training_step
    from qsci_plugins.training.finetune import FinetuneSettings, finetune

    torch.set_num_threads(case["threads"])
    model = reference(case["blocks"], case["width"])
    batch, side = FINE_TUNING
    patches = random_images(batch, side)
    # for the float step too, so that both start with the same in memory
    network = quantized_reference(model, case["scheme"], case["backend"], case["form"])
    with suppress(OSError):  # forgets the peak so far
        Path("/proc/self/clear_refs").write_text("5")
    before = held_mebibytes("VmRSS")
    if case["quantized"]:
        finetune(network, model, patches, FinetuneSettings(steps=_STEPS, batch=batch))
    else:
        for _ in range(_STEPS):
            training_step(model.train(), patches)
    peak = held_mebibytes("VmHWM")
    return {"added": peak - before, "peak": peak}


if __name__ == "__main__":
    switch_off_telemetry()
    print(json.dumps(_measured(json.loads(sys.argv[1]))))

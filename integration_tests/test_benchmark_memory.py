"""A benchmark holds one image at a time: its memory does not grow with their number."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from qsci_plugins.data.images import write_image

_SIDE = 512

#: peak MiB of this process, which measures everything itself, and how many images every form was measured on
_PROGRAM = """
import json, resource, sys
from qsci_plugins import benchmark

run, data, output = sys.argv[1:]
rows = benchmark([run], output, data=data, sets=["Photos"], jobs=1)["rows"]
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"peak": peak, "images": {row["form"]: len(row["sets"]["Photos"]["pieces"]) for row in rows}}))
"""


def photos(folder: Path, count: int) -> Path:
    (folder / "Photos").mkdir(parents=True)
    for seed in range(count):
        coarse = np.random.default_rng(seed).integers(0, 256, (_SIDE // 32, _SIDE // 32, 3), np.uint8)
        write_image(folder / "Photos" / f"{seed:02}.png", coarse.repeat(32, 0).repeat(32, 1))
    return folder


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="the system does not tell a process's peak memory")
def test_the_memory_of_a_benchmark_does_not_grow_with_its_images(tiny_run: Path, tmp_path: Path) -> None:
    peaks = []
    for count in (4, 40):
        data, output = photos(tmp_path / f"data{count}", count), tmp_path / f"out{count}"
        command = [sys.executable, "-c", _PROGRAM, str(tiny_run), str(data), str(output)]
        # freed tensors go back to the system at once, so that a peak is what was needed
        environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(2**20)}
        result = json.loads(subprocess.check_output(command, text=True, env=environment).splitlines()[-1])
        assert result["images"] == dict.fromkeys(("float", "torch", "openvino"), count)
        peaks.append(result["peak"])
    # the 36 further images are 27 MiB, each with its low resolution and its result 61 MiB
    assert peaks[1] < peaks[0] + 20

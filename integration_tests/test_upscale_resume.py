"""A run of `qsci upscale` that was killed or interrupted goes on, and ends as if it had not been."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from clip_files import decoded, smooth_frames, stamps_of, write_clip
from exact_network import exact_upscaler

#: the command, a segment every few frames; frames take a second from so many segments on, for a signal to arrive in
PROGRAM = """
import signal, sys, time
from pathlib import Path
from qsci_plugins.cli import main
from qsci_plugins.data.video import enlarging
from qsci_plugins.openvino.runtime import Upscaler

enlarging.segment_frames = lambda width, height: 5
whole = Upscaler.upscale
def slow(self, *arguments):
    output = Path(sys.argv[sys.argv.index("-o") + 1])
    if len(list(output.parent.glob(".*.parts/*.npz"))) >= int(sys.argv[1]):
        time.sleep(1)
    return whole(self, *arguments)
Upscaler.upscale = slow
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
sys.exit(main(sys.argv[2:]))
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exact_upscaler(tmp_path_factory.mktemp("exact") / "model")


def start(model: Path, clip: Path, output: Path, slow_after: int = 1000) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PROGRAM, str(slow_after), "upscale", str(model), str(clip), "-o", str(output)]
    return subprocess.Popen([*command, "--threads", "1"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_segments(folder: Path, count: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while len(list(folder.glob(".*.parts/*.npz"))) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_stopped_run_goes_on_and_ends_equal(model: Path, tmp_path: Path, how: signal.Signals) -> None:
    clip = write_clip(tmp_path / "a.mp4", smooth_frames(38), sounds=[("aac", "eng")])
    output = tmp_path / "out" / "big.mp4"
    output.parent.mkdir()
    for segments in (1, 4):  # stopped twice
        process = start(model, clip, output, segments)
        wait_for_segments(output.parent, segments, process)
        process.send_signal(how)
        _, said = process.communicate(timeout=60)
        assert process.returncode == (130 if how == signal.SIGINT else -how)
        assert "Traceback" not in said
        if how == signal.SIGINT:
            assert "the same command goes on after frame" in said
        assert not output.exists()
    process = start(model, clip, output)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert "goes on after frame 20" in said or "goes on after frame 25" in said
    whole = start(model, clip, tmp_path / "whole.mp4")
    assert whole.wait(120) == 0
    assert all(map(np.array_equal, decoded(output), decoded(tmp_path / "whole.mp4")))
    assert stamps_of(output) == stamps_of(tmp_path / "whole.mp4")
    assert output.read_bytes() == (tmp_path / "whole.mp4").read_bytes()
    assert [file.name for file in output.parent.iterdir()] == ["big.mp4"]


def test_a_changed_clip_starts_over(model: Path, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mp4", smooth_frames(38))
    process = start(model, clip, tmp_path / "big.mp4", 1)
    wait_for_segments(tmp_path, 2, process)
    process.kill()
    process.communicate()
    write_clip(clip, smooth_frames(12))
    again = start(model, clip, tmp_path / "big.mp4")
    _, said = again.communicate(timeout=120)
    assert again.returncode == 0
    assert "goes on" not in said
    assert len(decoded(tmp_path / "big.mp4")) == 12


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="the system does not tell a process's peak memory")
def test_memory_does_not_grow_with_the_clip(model: Path, tmp_path: Path) -> None:
    program = """
import resource, sys
from qsci_plugins import upscale_video

upscale_video(*sys.argv[1:4], threads=1, tile=(120, 160))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""
    peaks = []
    for count in (40, 200):
        clip = write_clip(tmp_path / f"{count}.mp4", smooth_frames(10, 120, 160) * (count // 10))
        command = [sys.executable, "-c", program, str(model), str(clip), str(tmp_path / f"{count}.big.mp4")]
        peaks.append(int(subprocess.check_output(command, text=True)))
    assert peaks[1] < peaks[0] + 25  # 160 more enlarged frames are 35 MiB

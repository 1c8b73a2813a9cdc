"""`--cluster local`: a Ray cluster of two workers gives what one process gives, whoever is killed and whenever."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from clip_files import decoded, smooth_frames, stamps_of, write_clip
from exact_network import exact_upscaler
from PIL import Image

from qsci_plugins import upscale

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("ray") is None, reason="ray is not installed: pip install 'qsci-plugins[cluster]'"
    ),
    pytest.mark.skipif(not Path("/proc/self/cmdline").is_file(), reason="the system does not list its processes"),
]

#: the command; a segment every few frames
PROGRAM = """
import signal, sys
from qsci_plugins.cli import main
from qsci_plugins.data.video import enlarging

enlarging.segment_frames = lambda width, height: 5
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exact_upscaler(tmp_path_factory.mktemp("exact") / "model")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    for number in range(24):
        pixels = random.integers(0, 256, (20, 30, 3), np.uint8).repeat(30, 0).repeat(30, 1)
        Image.fromarray(pixels).save(folder / f"{number:02}.{('png', 'jpg')[number % 2]}")
    return folder


@pytest.fixture(scope="module")
def whole(model: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What one process makes of the photos."""
    folder = tmp_path_factory.mktemp("whole")
    return {file.name: file.read_bytes() for file in upscale(model, [photos], folder, threads=1)}


def start(places: Path, *arguments: str | Path) -> subprocess.Popen[str]:
    """The command in two workers, with a home and temporary files of its own."""
    for name in ("home", "tmp"):
        (places / name).mkdir(exist_ok=True)
    prefixes = ("RAY_", "TMPDIR", "XDG_CACHE_HOME")
    variables = {name: value for name, value in os.environ.items() if not name.startswith(prefixes)}
    command = [sys.executable, "-c", PROGRAM, *map(str, arguments), "--cluster", "local", "--jobs", "2"]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**variables, "HOME": str(places / "home"), "TMPDIR": str(places / "tmp")},
        start_new_session=True,
    )


def wait_until(happened: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 240
    while not happened():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def processes_of(session: int) -> dict[int, str]:
    """The processes that a command started, by their ids, with their command lines."""
    found = {}
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdecimal() and os.getsid(int(folder.name)) == session:
                found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
    return {pid: line for pid, line in found.items() if line}


def workers_of(process: subprocess.Popen[str]) -> list[int]:
    return [pid for pid, line in processes_of(process.pid).items() if line.startswith("ray::_Worker")]


def leaves_nothing(places: Path, process: subprocess.Popen[str]) -> None:
    """No process, no temporary file, nothing in the home folder."""
    deadline = time.monotonic() + 20
    while processes_of(process.pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not processes_of(process.pid)
    assert not list((places / "home").rglob("*"))
    assert not list((places / "tmp").rglob("*"))


@pytest.mark.slow
def test_a_folder_comes_out_as_from_one_process_though_a_worker_is_killed(
    model: Path, photos: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    output = tmp_path / "out"
    process = start(tmp_path, "upscale", model, photos, "-o", output)
    wait_until(lambda: len(list(output.glob("[0-9]*"))) >= 3, process)
    os.kill(workers_of(process)[0], signal.SIGKILL)
    said, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    assert "its worker ended (ActorDiedError)" in errors
    assert {file.name: file.read_bytes() for file in output.iterdir()} == whole
    assert sorted(said.splitlines()) == [str(output / name) for name in sorted(whole)]
    assert all(line.startswith(("starting Ray", "upscaling", str(photos))) for line in errors.splitlines()), errors
    leaves_nothing(tmp_path, process)


@pytest.mark.slow
def test_an_interrupted_folder_goes_on(model: Path, photos: Path, whole: dict[str, bytes], tmp_path: Path) -> None:
    output = tmp_path / "out"
    process = start(tmp_path, "upscale", model, photos, "-o", output)
    wait_until(lambda: len(list(output.glob("[0-9]*"))) >= 3, process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    done = len(list(output.glob("[0-9]*")))
    assert 3 <= done < len(whole)
    assert f"interrupted; the same command goes on after {done} of {len(whole)} images" in errors
    leaves_nothing(tmp_path, process)
    before = {file.name: file.stat().st_mtime_ns for file in output.glob("[0-9]*")}
    process = start(tmp_path, "upscale", model, photos, "-o", output)
    said, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    assert f"goes on after {done} of {len(whole)} images" in errors
    assert len(said.splitlines()) == len(whole) - done
    assert {file.name: file.read_bytes() for file in output.iterdir()} == whole
    assert before.items() <= {file.name: file.stat().st_mtime_ns for file in output.iterdir()}.items()


@pytest.mark.slow
def test_a_clip_comes_out_as_from_one_process_killed_and_interrupted(model: Path, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mp4", smooth_frames(58, 240, 320), sounds=[("aac", "eng")])
    output, alone = tmp_path / "out" / "big.mp4", tmp_path / "alone.mp4"
    output.parent.mkdir()
    command = [sys.executable, "-c", PROGRAM, "upscale", str(model), str(clip), "-o", str(alone), "--threads", "1"]
    subprocess.run(command, check=True, timeout=240)
    process = start(tmp_path, "upscale", model, clip, "-o", output)

    def segments() -> int:
        return len(list(output.parent.glob(".*.parts/*.npz")))

    wait_until(lambda: segments() >= 2, process)
    os.kill(workers_of(process)[0], signal.SIGKILL)
    wait_until(lambda: segments() >= 4, process)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "the same command goes on after frame" in errors
    leaves_nothing(tmp_path, process)
    process = start(tmp_path, "upscale", model, clip, "-o", output)
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    assert "goes on after frame" in errors
    assert all(map(np.array_equal, decoded(output), decoded(alone)))
    assert stamps_of(output) == stamps_of(alone)
    assert output.read_bytes() == alone.read_bytes()
    assert [file.name for file in output.parent.iterdir()] == ["big.mp4"]


@pytest.mark.slow
def test_a_benchmark_measures_what_one_process_does(tiny_run: Path, photos: Path, tmp_path: Path) -> None:
    sets = tmp_path / "sets"
    sets.mkdir()
    for file in sorted(photos.glob("*.png"))[:3]:
        (sets / file.name).write_bytes(file.read_bytes())
    process = start(tmp_path, "benchmark", tiny_run, "--sets", sets, "-o", tmp_path / "shared")
    _, errors = process.communicate(timeout=400)
    assert process.returncode == 0, errors
    alone = [
        sys.executable,
        "-c",
        PROGRAM,
        "benchmark",
        str(tiny_run),
        "--sets",
        str(sets),
        "-o",
        str(tmp_path / "alone"),
    ]
    subprocess.run([*alone, "--jobs", "1"], check=True, timeout=400, capture_output=True)
    rows = [json.loads((tmp_path / name / "benchmark.json").read_text())["rows"] for name in ("shared", "alone")]
    assert rows[0] == rows[1]
    assert len(rows[0]) == 3
    leaves_nothing(tmp_path, process)


@pytest.mark.slow
def test_a_cluster_that_is_not_there_is_one_line(model: Path, photos: Path, tmp_path: Path) -> None:
    for address in ("auto", "127.0.0.1:1"):
        command = [
            sys.executable,
            "-m",
            "qsci_plugins",
            "upscale",
            str(model),
            str(photos),
            "-o",
            str(tmp_path / "out"),
        ]
        done = subprocess.run(
            [*command, "--cluster", address], capture_output=True, text=True, timeout=240, check=False
        )
        assert done.returncode == 2
        (error,) = (line for line in done.stderr.splitlines() if line.startswith("qsci: error"))
        assert f"--cluster {address}: no Ray cluster answers" in error
        assert not list((tmp_path / "out").glob("*"))


@pytest.fixture
def running(tmp_path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """The address of a cluster that somebody runs, and the variables to reach it with."""
    (tmp_path / "home").mkdir()
    temporary = Path(tempfile.mkdtemp(prefix="qsci-", dir="/tmp"))
    ray = [sys.executable, "-m", "ray.scripts.scripts"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"127.0.0.1:{port}"
    own = {"HOME": str(tmp_path / "home"), "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
    variables = {**os.environ, **own}
    head = [*ray, "start", "--head", "--block", f"--port={port}", f"--temp-dir={temporary}", "--num-cpus=2"]
    process = subprocess.Popen(
        [*head, "--node-ip-address=127.0.0.1", "--include-dashboard=false"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=variables,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 120
        status = [*ray, "status", f"--address={address}"]
        while subprocess.run(status, env=variables, capture_output=True, check=False).returncode:
            assert time.monotonic() < deadline
        yield address, variables
        assert process.poll() is None  # whoever used it left it running
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(60)
        shutil.rmtree(temporary, ignore_errors=True)


@pytest.mark.slow
def test_a_running_cluster_is_joined_and_left_running(
    running: tuple[str, dict[str, str]], model: Path, photos: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    address, variables = running
    for number in range(2):  # the second finds what the first left
        command = [sys.executable, "-m", "qsci_plugins", "upscale", str(model), str(photos), "--cluster", address]
        output = tmp_path / f"out{number}"
        done = subprocess.run(
            [*command, "-o", str(output)], env=variables, capture_output=True, text=True, timeout=240, check=False
        )
        assert done.returncode == 0, done.stderr
        assert {file.name: file.read_bytes() for file in output.iterdir()} == whole


@pytest.mark.slow
def test_machines_of_a_cluster_run_the_recipes_of_a_sweep(
    running: tuple[str, dict[str, str]], tiny: Path, photos: Path
) -> None:
    address, variables = running
    sets = tiny.parent / "sets"
    sets.mkdir()
    (sets / "0.png").write_bytes((photos / "00.png").read_bytes())
    command = ["sweep", "tiny.yaml", "--key", "scheme.activation_bits=4,8", "--sets", "./sets"]
    results = []
    for output, more in (("shared", ["--cluster", address]), ("alone", ["--jobs", "1"])):
        line = [sys.executable, "-m", "qsci_plugins", *command, "-o", output, *more]
        done = subprocess.run(
            line, cwd=tiny.parent, env=variables, capture_output=True, text=True, timeout=500, check=False
        )
        assert done.returncode == 0, done.stderr
        assert ("running recipes: " in done.stderr) == (output == "shared")
        found = json.loads((tiny.parent / output / "sweep.json").read_text())
        for point in found["points"]:
            for row in point["rows"].values():
                row.pop("seconds")
        results.append(found)
    assert results[0] == results[1]
    assert len(results[0]["points"]) == 2


@pytest.mark.slow
def test_a_program_that_uses_ray_keeps_its_own(
    model: Path, photos: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    program = """
import sys
import ray
import qsci_plugins

ray.init(num_cpus=2, include_dashboard=False, _temp_dir=sys.argv[4])
name = ray.get_runtime_context().get_node_id()
qsci_plugins.upscale(sys.argv[1], [sys.argv[2]], sys.argv[3], cluster="local")
assert ray.is_initialized() and ray.get_runtime_context().get_node_id() == name
"""
    temporary = tempfile.mkdtemp(prefix="qsci-", dir="/tmp")
    variables = {**os.environ, "HOME": str(tmp_path), "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    try:
        command = [sys.executable, "-c", program, str(model), str(photos), str(tmp_path / "out"), temporary]
        subprocess.run(command, env=variables, check=True, timeout=240, capture_output=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    assert {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()} == whole

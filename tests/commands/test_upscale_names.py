"""Names of every kind, and streams that are closed: the images are written, and said to be."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from exact_network import exact_upscaler, nearest
from PIL import Image

NAMES = {
    "emoji": os.fsencode("\N{FROG FACE}" * 60),
    "long": b"a" * 251,
    "not_utf8": b"caf\xe9 \xff",
    "newline_free": "Füße 猫".encode(),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exact_upscaler(tmp_path_factory.mktemp("exact") / "model")


def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, 4, 3), np.uint8)


def folder_of(folder: Path, *names: bytes) -> Path:
    folder.mkdir()
    for name in names:
        with open(os.fsencode(folder) + b"/" + name + b".png", "wb") as stream:
            Image.fromarray(pixels()).save(stream, "PNG")
    return folder


def upscale(
    model: Path, source: Path, target: Path, shell: str = "", **options: str
) -> subprocess.CompletedProcess[bytes]:
    command = f'exec "$0" -m qsci_plugins upscale "$1" "$2" -o "$3" --threads 1 {shell}'
    return subprocess.run(
        ["bash", "-c", command, sys.executable, str(model), str(source), str(target)],
        capture_output=True,
        check=False,
        env={**os.environ, **options},
        timeout=120,
    )


def check(target: Path, *names: bytes) -> None:
    assert sorted(os.listdir(os.fsencode(target))) == sorted(name + b".png" for name in names)
    for name in names:
        with open(os.fsencode(target) + b"/" + name + b".png", "rb") as stream:
            np.testing.assert_array_equal(np.asarray(Image.open(stream)), nearest(pixels()))


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_names_that_are_hard_to_print(model: Path, tmp_path: Path, encoding: str) -> None:
    source = folder_of(tmp_path / "in", *NAMES.values())
    done = upscale(model, source, tmp_path / "out", PYTHONIOENCODING=encoding)
    assert done.returncode == 0, done.stderr
    check(tmp_path / "out", *NAMES.values())
    lines = done.stdout.splitlines()
    assert len(lines) == len(NAMES)
    if encoding == "utf-8":
        assert set(lines) == {os.fsencode(tmp_path / "out") + b"/" + name + b".png" for name in NAMES.values()}


@pytest.mark.parametrize("stream", [">&-", "> /dev/full", "| true", "<&- >&- 2>&-", "2>&-"])
def test_a_standard_output_that_takes_nothing(model: Path, tmp_path: Path, stream: str) -> None:
    source = folder_of(tmp_path / "in", b"a", b"b", NAMES["not_utf8"])
    done = upscale(model, source, tmp_path / "out", stream)
    assert b"Traceback" not in done.stderr
    assert b"rror" not in done.stderr
    check(tmp_path / "out", b"a", b"b", NAMES["not_utf8"])
    if stream in (">&-", "> /dev/full"):
        assert done.returncode == 0
        assert done.stderr.count(b"out/") == 3  # said there instead

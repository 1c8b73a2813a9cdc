"""Commands write into their output folder and nowhere else: not the working folder, not the home folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

#: runs commands and prints every path that Python opens for writing, creates, renames or removes
PROGRAM = """
import os, sys

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT

def watch(event, arguments):
    if event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITING and not isinstance(arguments[0], int):
        paths = arguments[:1]
    elif event.startswith("os.") and arguments[-1] != -1:
        return  # inside a folder whose own removal was told before
    elif event in ("os.mkdir", "os.remove", "os.rmdir", "shutil.rmtree"):
        paths = arguments[:1]
    elif event in ("os.rename", "os.link", "os.symlink"):
        paths = arguments[:2]
    else:
        return
    for path in paths:
        print("WROTE", os.path.abspath(os.fsdecode(path)), file=sys.__stdout__)

sys.addaudithook(watch)
sys.dont_write_bytecode = True
from qsci_plugins.cli import main

for command in (
    ["run", "tiny.yaml", "-o", "out/run", "--set", "export.openvino={mode: routed, tile: [64, 96]}"],
    ["upscale", "out/run", "photo.png", "-o", "out/big.png"],
    ["bench", "out/run", "--repeats", "1"],
    ["reconstruct", "builtin:efficientsci_small", "-o", "out/frames", "--format", "gif"],
):
    code = main(command)
    assert code == 0, (command, code)
"""


def test_commands_write_nothing_but_their_output(tiny: Path, tmp_path: Path) -> None:
    from PIL import Image

    places = {name: tmp_path / name for name in ("work", "home", "temporary")}
    for place in places.values():
        place.mkdir()
    work = places["work"]
    (work / "tiny.yaml").write_text(tiny.read_text())
    Image.new("RGB", (20, 16), (200, 30, 60)).save(work / "photo.png")
    # as on a machine of a user: build servers are asked less, and torch tells its children where it keeps things
    ignored = ("CI", "TF_BUILD", "JENKINS_URL", "ORT_DISABLE_TELEMETRY", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")
    variables = {name: value for name, value in os.environ.items() if name not in ignored}
    homes = {"HOME": places["home"], "XDG_CACHE_HOME": places["home"] / "cache", "TMPDIR": places["temporary"]}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=work,
        env={**variables, **{name: str(path) for name, path in homes.items()}},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in work.iterdir()) == ["out", "photo.png", "tiny.yaml"]
    assert not list(places["home"].rglob("*"))
    assert not [path for path in places["temporary"].rglob("*") if path.is_file()]
    written = {line.removeprefix("WROTE ") for line in done.stdout.splitlines() if line.startswith("WROTE ")}
    allowed = (f"{work / 'out'}", f"{places['temporary']}/", "/dev/")
    assert any(path.startswith(allowed[0]) for path in written)
    assert not {path for path in written if not path.startswith(allowed)}

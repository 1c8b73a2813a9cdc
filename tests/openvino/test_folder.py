"""A model folder is the old one or the new one at every moment."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from qsci_plugins.errors import UserError
from qsci_plugins.openvino import folder as writing
from qsci_plugins.openvino.folder import write_folder
from qsci_plugins.openvino.manifest import Manifest, Route, load_manifest, stored


class KilledError(BaseException):
    """Stands for the process's end."""


_NAMES = (("zero", "xml"), ("weights", "bin"))


def model(letter: str) -> tuple[Manifest, dict[str, bytes]]:
    files = {f"{name}-{letter * 12}.{suffix}": letter.encode() * 9 for name, suffix in _NAMES}
    graph, weights = (stored(name, content) for name, content in files.items())
    return Manifest(2, (8, 8), 1, 255.0, weights, (Route(0, graph, {}, 32.0),), about={"is": letter}), files


def test_every_moment_of_a_replacement_leaves_a_whole_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The writer dies before its n-th change of the disk, for every n."""
    changes = [(Path, "write_bytes"), (Path, "mkdir"), (Path, "unlink"), (os, "rename"), (os, "replace")]
    seen = set()
    for moment in range(20):
        target = tmp_path / f"run{moment}" / "model"
        write_folder(target, *model("a"))
        count = 0

        def dying(original, *, moment=moment):
            def change(*arguments, **keywords):
                nonlocal count
                if count == moment:
                    raise KilledError
                count += 1
                return original(*arguments, **keywords)

            return change

        with monkeypatch.context() as patch:
            for owner, name in changes:
                patch.setattr(owner, name, dying(getattr(owner, name)))
            patch.setattr(shutil, "rmtree", lambda *_, **__: None)
            try:
                write_folder(target, *model("b"))
                finished = True
            except KilledError:
                finished = False
        found = load_manifest(target).about["is"]
        seen.add(found)
        if finished:
            assert found == "b"
            assert moment > 6
            assert {file.name for file in target.iterdir()} == {*model("b")[1], "manifest.json"}
            break
    assert seen == {"a", "b"}


def test_a_killed_first_export_leaves_nothing_under_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "rename", lambda *_: (_ for _ in ()).throw(KilledError))
    with pytest.raises(KilledError):
        write_folder(tmp_path / "model", *model("a"))
    assert not (tmp_path / "model").exists()


@pytest.mark.skipif(os.name != "posix", reason="elsewhere they stay")
def test_what_killed_exports_left_beside_is_removed(tmp_path: Path) -> None:
    dead, alive = tmp_path / ".model.partial-999999999", tmp_path / f".model.partial-{os.getppid()}"
    for left in (dead, alive):
        left.mkdir()
    write_folder(tmp_path / "model", *model("a"))
    assert not dead.exists()
    assert alive.exists()
    load_manifest(tmp_path / "model")


def test_a_folder_of_something_else_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "thesis.txt").write_text("work of years")
    with pytest.raises(UserError, match="no model folder"):
        write_folder(tmp_path / "model", *model("a"))
    assert [file.name for file in tmp_path.rglob("*")] == ["model", "thesis.txt"]


def test_a_full_disk_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path / "model", *model("a"))

    def full(self: Path, content: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writing.Path, "write_bytes", full)
    with pytest.raises(UserError, match="No space left"):
        write_folder(tmp_path / "model", *model("b"))
    assert load_manifest(tmp_path / "model").about["is"] == "a"
    assert [file.name for file in tmp_path.iterdir()] == ["model"]


@pytest.mark.skipif(os.name != "posix", reason="kills by signal")
def test_twenty_kills_at_random_moments(tmp_path: Path) -> None:
    program = """
import sys
from qsci_plugins.openvino.folder import write_folder
from qsci_plugins.openvino.manifest import Manifest, Route, stored

_NAMES = (("zero", "xml"), ("weights", "bin"))


def model(letter):
    names = [(f"{name}-{letter * 12}.{suffix}") for name, suffix in (("zero", "xml"), ("weights", "bin"))]
    files = {name: letter.encode() * 300_000 for name in names}
    graph, weights = (stored(name, content) for name, content in files.items())
    return Manifest(2, (8, 8), 1, 255.0, weights, (Route(0, graph, {}, 32.0),), about={"is": letter}), files

models = [model(letter) for letter in "ab"]
write_folder(sys.argv[1], *models[0])
print("ready", flush=True)
while True:
    for each in models[::-1]:
        write_folder(sys.argv[1], *each)
"""
    generator = random.Random(0)
    seen = set()
    for _ in range(20):
        process = subprocess.Popen([sys.executable, "-c", program, tmp_path / "model"], stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        time.sleep(generator.uniform(0, 0.05))
        process.kill()
        process.wait()
        process.stdout.close()
        seen.add(load_manifest(tmp_path / "model").about["is"])
    assert seen == {"a", "b"}
    write_folder(tmp_path / "model", *model("c"))
    assert [file.name for file in tmp_path.iterdir()] == ["model"]
    assert {file.name for file in (tmp_path / "model").iterdir()} == {"manifest.json", *model("c")[1]}

"""Files appear complete or not at all, locks hold one process off, and folders change names in one step."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from qsci_plugins import files
from qsci_plugins.errors import UserError
from qsci_plugins.files import check_regular, exchange, locked, replacing, temporary_pattern, write_bytes, write_text

#: holds the lock of the path given, says so, and ends when its input does
HOLDER = """
import sys
from qsci_plugins.files import locked
with locked(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


def _write_half(file: Path, error: BaseException) -> None:
    with replacing(file) as temporary:
        temporary.write_text("half")
        raise error


def test_bytes_and_text_replace_what_was_there(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    write_bytes(file, b"\x00\r\n")
    assert file.read_bytes() == b"\x00\r\n"
    write_text(file, "ä\n")
    assert file.read_bytes() == b"\xc3\xa4\n"
    assert os.listdir(tmp_path) == ["a.json"]


def test_the_target_is_untouched_until_the_block_ends(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_text("old")
    with replacing(file) as temporary:
        temporary.write_text("new")
        assert temporary.parent == tmp_path
        assert temporary.match(temporary_pattern(file))
        assert not temporary.match("*.png")  # who lists the folder's pictures does not find it
        assert file.read_text() == "old"
    assert file.read_text() == "new"
    assert os.listdir(tmp_path) == ["a.png"]


def test_writers_that_look_at_the_suffix_get_one(tmp_path: Path) -> None:
    with replacing(tmp_path / "a.mp4", suffix=".mp4") as temporary:
        assert temporary.suffix == ".mp4"
        temporary.write_text("new")
    assert os.listdir(tmp_path) == ["a.mp4"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, RuntimeError])
def test_an_exception_passes_and_leaves_the_old_file(tmp_path: Path, error: type[BaseException]) -> None:
    file = tmp_path / "a"
    file.write_text("old")
    with pytest.raises(error):
        _write_half(file, error("for another reason"))
    assert file.read_text() == "old"
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "the disk is full"),
        (OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)), "the disk is full"),
        (OSError(errno.EACCES, os.strerror(errno.EACCES)), "Permission denied"),
        (OSError("encoder error -2"), "encoder error -2"),
        (RuntimeError("[enforce fail at inline_container.cc:659] . unexpected pos 64 vs 0"), "the disk is full"),
        (RuntimeError("basic_ios::clear: iostream error"), "the disk is full"),
        (RuntimeError("Parent directory x does not exist."), "Parent directory x does not exist."),
    ],
)
def test_what_the_disk_refuses_names_the_file(tmp_path: Path, error: Exception, reason: str) -> None:
    file = tmp_path / "a"
    with pytest.raises(UserError) as caught:
        _write_half(file, error)
    assert str(caught.value) == f"cannot write {file}: {reason}"
    assert os.listdir(tmp_path) == []


def test_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    file = tmp_path / "none" / "a"
    with pytest.raises(UserError, match=f"cannot write {file}: No such file or directory"):
        write_text(file, "new")
    with pytest.raises(UserError, match=f"cannot write {file}: .*does not exist"), replacing(file) as temporary:
        torch.save({}, temporary)


def test_a_folder_in_the_place_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(UserError, match=r"cannot write .*a: Is a directory"):
        write_text(tmp_path / "a", "new")
    assert os.listdir(tmp_path) == ["a"]


def test_names_as_long_as_the_system_allows(tmp_path: Path) -> None:
    for name in ("x" * 255, "é" * 127):
        write_text(tmp_path / name, "new")
        assert (tmp_path / name).read_text() == "new"


def test_tensors_are_the_same_bytes_whoever_writes_them(tmp_path: Path) -> None:
    """torch puts the file's name, up to its last dot, into the file."""
    program = (
        "import sys, torch; from qsci_plugins.files import replacing\n"
        "with replacing(sys.argv[1]) as file: torch.save({'a': torch.ones(2)}, file)"
    )
    with replacing(tmp_path / "a.pt") as file:
        torch.save({"a": torch.ones(2)}, file)
    first = (tmp_path / "a.pt").read_bytes()
    subprocess.run([sys.executable, "-c", program, tmp_path / "a.pt"], check=True)
    assert (tmp_path / "a.pt").read_bytes() == first


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no advisory locks")
@pytest.mark.parametrize("kind", ["file", "folder", "new file"])
def test_another_process_is_held_off(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "target"
    if kind == "folder":
        target.mkdir()
    elif kind == "file":
        target.write_text("content")
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, target], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(UserError, match=r"^somebody else has it$"), locked(target, "somebody else has it"):
        pytest.fail("the lock was given twice")
    holder.communicate()
    with locked(target, "somebody else has it"):
        pass
    assert target.is_dir() or target.read_text() == ("content" if kind == "file" else "")


@pytest.mark.skipif(not hasattr(os, "fork") or sys.platform == "win32", reason="forks a process")
def test_what_a_killed_process_forked_holds_no_lock_on(tmp_path: Path) -> None:
    program = (
        "import os, sys, time\nfrom qsci_plugins.files import locked\nwith locked(sys.argv[1]):\n"
        "    child = os.fork()\n    if child == 0:\n        print(os.getpid(), flush=True)\n        time.sleep(60)\n"
        "        os._exit(0)\n    time.sleep(60)\n"
    )
    file = tmp_path / "lock"
    parent = subprocess.Popen([sys.executable, "-c", program, str(file)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    try:
        with pytest.raises(UserError, match="taken"), locked(file, "taken"):
            pass
        parent.kill()
        parent.wait()
        with locked(file, "taken"):
            os.kill(child, 0)  # which lives on
    finally:
        os.kill(child, 9)


def test_a_lock_changes_no_error_of_its_block(tmp_path: Path) -> None:
    with pytest.raises(BlockingIOError), locked(tmp_path, "somebody else has it"):
        raise BlockingIOError


def test_without_advisory_locks_nothing_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fcntl", None)
    with locked(tmp_path / "none", "busy"), locked(tmp_path / "none", "busy"):
        assert os.listdir(tmp_path) == []


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="of Linux alone")
def test_two_folders_change_names(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    assert exchange(tmp_path / "a", tmp_path / "b")
    assert os.listdir(tmp_path / "a") == ["b"]
    assert not exchange(tmp_path / "a", tmp_path / "none")


def test_other_systems_cannot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files.sys, "platform", "darwin")
    assert not exchange(tmp_path, tmp_path)


def test_what_never_ends_is_no_file_to_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/zero")
    (tmp_path / "file").touch()
    for name, kind in (("pipe", "pipe"), ("link", "device")):
        with pytest.raises(UserError, match=f"{name}: it is a {kind}, not a regular file"):
            check_regular(tmp_path / name)
    for passes in ("file", "missing", "."):
        check_regular(tmp_path / passes)
    with pytest.raises(UserError, match="cannot be the name of a file"):
        check_regular("a\0b")

from __future__ import annotations

import errno
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from qsci_plugins.errors import UserError
from qsci_plugins.recipes import outputs
from qsci_plugins.recipes.outputs import check_output, work_folder


def run(
    output: Path,
    recipe: str = "a",
    content: str = "new",
    force: bool = False,
    file: str = "result",
    failure: BaseException | None = None,
) -> None:
    with work_folder(output, recipe, force) as work:
        (work / file).write_text(content)
        if failure is not None:
            raise failure


def interrupt(output: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(output, content="7", file="step.state", failure=KeyboardInterrupt())


def test_a_finished_run_leaves_its_folder_alone_and_nothing_beside_it(tmp_path: Path) -> None:
    output = tmp_path / "runs" / "demo"
    run(output)
    assert {file.name for file in output.iterdir()} == {"recipe.yaml", "result"}
    assert [file.name for file in output.parent.iterdir()] == ["demo"]


def test_an_existing_output_is_replaced_only_with_force(tmp_path: Path) -> None:
    output = tmp_path / "demo"
    run(output)
    with pytest.raises(UserError, match=r"exists; .*--force"):
        run(output, content="newer")
    assert (output / "result").read_text() == "new"
    run(output, recipe="b", content="newer", force=True)
    assert (output / "result").read_text() == "newer"
    assert [file.name for file in tmp_path.iterdir()] == ["demo"]


def test_force_never_replaces_a_folder_of_other_things(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter").write_text("dear")
    with pytest.raises(UserError, match="not the output of a run"):
        run(tmp_path / "home", force=True)
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="is a file"):
        run(tmp_path / "file", force=True)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["file", "home"]


def test_an_empty_folder_is_a_free_output(tmp_path: Path) -> None:
    (tmp_path / "demo").mkdir()
    check_output(tmp_path / "demo", False)
    run(tmp_path / "demo")
    assert (tmp_path / "demo" / "result").is_file()


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="odd"):
        run(tmp_path / "demo", failure=UserError("odd"))
    assert not list(tmp_path.iterdir())


def test_an_interrupted_run_goes_on_with_its_own_recipe_alone(tmp_path: Path) -> None:
    output = tmp_path / "demo"
    interrupt(output)
    assert not output.exists()
    with pytest.raises(UserError, match="another recipe"):
        run(output, recipe="b")
    with work_folder(output, "a") as work:
        assert (work / "step.state").read_text() == "7"
    assert not (output / "step.state").exists()


def test_force_forgets_the_interrupted_run_of_another_recipe(tmp_path: Path) -> None:
    interrupt(tmp_path / "demo")
    with work_folder(tmp_path / "demo", "b", force=True) as work:
        assert [file.name for file in work.iterdir()] == ["recipe.yaml"]


def test_a_foreign_folder_under_the_work_name_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "demo.partial").mkdir()
    (tmp_path / "demo.partial" / "mine").write_text("x")
    with pytest.raises(UserError, match="in the way"):
        run(tmp_path / "demo", force=True)
    assert (tmp_path / "demo.partial" / "mine").is_file()


def test_a_kill_between_the_renames_is_undone(tmp_path: Path) -> None:
    run(tmp_path / "demo", content="old")
    os.rename(tmp_path / "demo", tmp_path / ".demo.replaced")
    with pytest.raises(UserError, match="exists"):
        run(tmp_path / "demo")
    assert (tmp_path / "demo" / "result").read_text() == "old"


def test_without_an_exchange_the_renames_replace_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outputs, "exchange", lambda first, second: False)
    run(tmp_path / "demo", content="old")
    run(tmp_path / "demo", content="new", force=True)
    assert (tmp_path / "demo" / "result").read_text() == "new"
    assert [file.name for file in tmp_path.iterdir()] == ["demo"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere folders cannot change names in one step")
def test_twenty_kills_at_random_moments_leave_the_old_or_the_new_output(tmp_path: Path) -> None:
    program = """
import sys
from pathlib import Path
from qsci_plugins.recipes.outputs import work_folder

def run(letter):
    with work_folder(Path(sys.argv[1]), letter, force=True) as work:
        (work / "model").mkdir()
        for index in range(5):
            (work / "model" / str(index)).write_text(letter * 100_000)

run("a")
print("ready", flush=True)
while True:
    for letter in "ba":
        run(letter)
"""
    generator = random.Random(0)
    seen = set()
    for _ in range(20):
        process = subprocess.Popen([sys.executable, "-c", program, tmp_path / "out"], stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        time.sleep(generator.uniform(0, 0.05))
        process.kill()
        process.wait()
        process.stdout.close()
        letter = (tmp_path / "out" / "recipe.yaml").read_text()
        contents = {file.read_text() for file in (tmp_path / "out" / "model").iterdir()}
        assert contents == {letter * 100_000}
        assert len(list((tmp_path / "out" / "model").iterdir())) == 5
        seen.add(letter)
    assert seen == {"a", "b"}
    run(tmp_path / "out", recipe="c", force=True)
    assert [file.name for file in tmp_path.iterdir()] == ["out"]


def test_two_processes_do_not_share_an_output(tmp_path: Path) -> None:
    output = tmp_path / "demo"
    with work_folder(output, "a"):
        code = (
            "import sys; from pathlib import Path; from qsci_plugins.recipes.outputs import work_folder\n"
            "with work_folder(Path(sys.argv[1]), 'a'): pass"
        )
        other = subprocess.run([sys.executable, "-c", code, str(output)], capture_output=True, text=True, check=False)
    assert "another process is writing" in other.stderr
    assert (output / "recipe.yaml").is_file()


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), OSError(errno.EDQUOT, "quota")])
def test_a_full_disk_is_one_sentence(tmp_path: Path, error: OSError) -> None:
    with pytest.raises(UserError, match="the disk is full"):
        run(tmp_path / "demo", failure=error)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="Permission denied"):
        run(tmp_path / "demo")

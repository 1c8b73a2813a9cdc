from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from qsci_plugins.errors import UserError
from qsci_plugins.pipeline import output as outputs
from qsci_plugins.pipeline.output import check_output, work_folder

LINUX = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="elsewhere folders cannot change names in one step"
)


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


#: forks, ends the fork before its n-th change to the disk, and looks at what is left
KILLS = """
import os, shutil, sys
from pathlib import Path
from qsci_plugins.pipeline import output as outputs
from qsci_plugins.pipeline.output import work_folder

out, atomic = Path(sys.argv[1]), sys.argv[2] == "True"
changes, last = 0, None

def count(event, arguments):
    global changes
    if last is not None and event in ("open", "os.mkdir", "os.remove", "os.rename", "os.rmdir"):
        changes += 1
        if changes == last:
            os._exit(9)

def run(recipe, fails=False):
    with work_folder(out, recipe, force=True) as work:
        (work / "model").mkdir()
        for index in range(3):
            (work / "model" / str(index)).write_text(recipe)
        if fails:
            raise KeyboardInterrupt

def complete():
    return {file.read_text() for file in (out / "model").iterdir()} == {(out / "recipe.yaml").read_text()} and len(
        list((out / "model").iterdir())
    ) == 3

if not atomic:
    outputs.exchange = lambda first, second: False
for name in ("run", "interrupt"):
    for number in range(1, 1000):
        shutil.rmtree(out.parent)
        out.parent.mkdir()
        run("old")
        child = os.fork()
        if child == 0:
            sys.addaudithook(count)
            last = number
            try:
                run("new", fails=name == "interrupt")
            except KeyboardInterrupt:
                pass
            os._exit(0)
        ended = os.WEXITSTATUS(os.waitpid(child, 0)[1])
        assert complete() if atomic or out.exists() else True, (name, number)
        run("third")
        assert complete() and (out / "recipe.yaml").read_text() == "third", (name, number)
        assert os.listdir(out.parent) == ["out"], (name, number, os.listdir(out.parent))
        if ended == 0:
            break
    assert number > 10, number
print("all")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks a process for each kill")
@pytest.mark.parametrize("atomic", [pytest.param(True, marks=LINUX), False])
def test_a_kill_before_any_change_to_the_disk_leaves_an_output_and_the_next_run_works(
    tmp_path: Path, atomic: bool
) -> None:
    command = [sys.executable, "-c", KILLS, str(tmp_path / "runs" / "out"), str(atomic)]
    (tmp_path / "runs").mkdir()
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.stdout == "all\n", done.stderr


def test_two_processes_do_not_share_an_output(tmp_path: Path) -> None:
    output = tmp_path / "demo"
    with work_folder(output, "a"):
        code = (
            "import sys; from pathlib import Path; from qsci_plugins.pipeline.output import work_folder\n"
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

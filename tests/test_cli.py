from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from qsci_plugins import __version__
from qsci_plugins.cli import main
from qsci_plugins.commands.console import PlainProgress


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def modules_after(code: str, *names: str) -> set[str]:
    """Which of the named modules a fresh interpreter has imported after running `code`."""
    check = f"{code}\nimport sys; print('\\n' + ' '.join(n for n in {names!r} if n in sys.modules))"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


def test_recipes_lists_every_shipped_recipe_with_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "recipes")
    assert code == 0
    lines = out.splitlines()
    assert any(line.startswith("recipes/sr/edsr_x4_adabm_w4a4.yaml ") for line in lines)
    assert all(re.match(r"recipes/\S+\.yaml +\S.{20,}", line) for line in lines)


def test_validate_says_valid_for_shipped_names_and_paths(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("version: 1\nmodel: {weights: builtin:edsr_x4}\nscheme: {name: adabm}\n")
    code, out, err = run(capsys, "validate", "recipes/sr/edsr_x4_adabm_w4a4.yaml", tmp_path / "own.yaml")
    assert (code, err) == (0, "")
    assert out.count(": valid") == 2


def test_validate_reports_every_wrong_file_and_exits_with_2(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("version: 1\nmodle: {}\n")
    (tmp_path / "b.yaml").write_text("- 1\n")
    code, out, err = run(capsys, "validate", tmp_path / "a.yaml", tmp_path / "b.yaml", "sr/edsr_x4_adabm_w4a4")
    assert code == 2
    assert out.count(": valid") == 1
    lines = err.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith(f"qsci: error: {tmp_path / 'a.yaml'}: unknown key 'modle'; the nearest is 'model'")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["frobnicate"], "invalid choice: 'frobnicate'"),
        (["run"], "the following arguments are required: RECIPE, --output"),
        (["run", "sr/edsr_x4_adabm_w4a4"], "required: --output"),
        (["run", "--outptu", "x"], "required"),
        (["recipes", "--nonsense"], "unrecognized arguments: --nonsense"),
        (["validate"], "required: RECIPE"),
        (["validate", "sr/edsr_x4_adabm_w4b4"], "there is no recipe .*nearest.*sr/edsr_x4_adabm_w4a4"),
        (["validate", "float/edsr_x4", "--set", "train.step=3"], "--set train.step=3: .*'train.steps'"),
        (["upscale", "nowhere", "a.png", "-o", "b.png"], "there is no model folder nowhere"),
        (["upscale", ".", "a.png", "-o", "b.png", "--threads", "0"], "--threads: should be a whole number"),
        (["run", "float/edsr_x4", "-o", "x"], "trains a float network; run it with `qsci train`"),
        (["train", "sr/edsr_x4_adabm_w4a4", "-o", "x"], "quantizes a network; run it with `qsci run`"),
        (["evaluate", "nowhere"], "nowhere"),
        (["bench", "nowhere"], "there is no model folder nowhere"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, *arguments)
    assert code == 2
    assert out == ""
    assert err.startswith("qsci: error: ")
    assert len(err.splitlines()) == 1
    assert re.search(message, err), err
    assert not list(tmp_path.iterdir())


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys)[0] == 0
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert __version__ in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        main(["run", "--help"])
    assert ended.value.code == 0


def test_ctrl_c_is_one_line_and_exit_code_130(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("qsci_plugins.recipes.library.shipped_recipes", stopped)
    code, _, err = run(capsys, "recipes")
    assert code == 130
    assert err.strip() == "qsci: interrupted"


def test_python_m_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "qsci_plugins", "validate", "x"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("qsci: error: there is no recipe x")


def test_importing_the_package_is_light() -> None:
    assert modules_after("import qsci_plugins", "torch", "numpy", "openvino", "nncf", "brevitas", "pydantic") == set()


def test_listing_recipes_needs_no_torch() -> None:
    code = "from qsci_plugins.cli import main; main(['recipes'])"
    assert modules_after(code, "torch", "openvino", "nncf", "brevitas") == set()


@pytest.mark.parametrize("chosen", [None, "ACTIVE"])
def test_a_command_has_threads_sleep_while_they_wait_unless_told_otherwise(chosen: str | None) -> None:
    """A thread that spins holds the core from the one that it waits for, where another program has a core."""
    environment = {key: value for key, value in os.environ.items() if key != "OMP_WAIT_POLICY"}
    environment |= {} if chosen is None else {"OMP_WAIT_POLICY": chosen}
    code = "import os, qsci_plugins.cli as c; c.main(['recipes']); print(os.environ['OMP_WAIT_POLICY'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.splitlines()[-1] == (chosen or "PASSIVE")


def test_every_public_name_is_there() -> None:
    import qsci_plugins

    for name in qsci_plugins.__all__:
        assert getattr(qsci_plugins, name) is not None
    assert set(qsci_plugins.__all__) <= set(dir(qsci_plugins))
    with pytest.raises(AttributeError, match="no attribute 'rnu'"):
        _ = qsci_plugins.rnu


def test_float_training_imports_neither_nncf_nor_brevitas(tmp_path: Path) -> None:
    from qsci_plugins.data import write_image

    write_image(tmp_path / "a.png", np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8))
    overrides = [f"data=[{{path: {tmp_path}}}]", "train={steps: 1, batch: 1, patch: 8, cpu: true}", "evaluate=[]"]
    overrides += ["model={architecture: edsr, scale: 2, settings: {blocks: 1, width: 4}}"]
    arguments = ["train", "float/edsr_x4", "-o", str(tmp_path / "out")]
    arguments += [part for override in overrides for part in ("--set", override)]
    code = f"from qsci_plugins.cli import main; assert main({arguments!r}) == 0"
    assert modules_after(code, "torch", "accelerate", "nncf", "brevitas", "openvino") == {"torch", "accelerate"}
    assert (tmp_path / "out" / "weights.safetensors").is_file()


def test_video_training_needs_no_openvino_and_no_readers_of_files(tmp_path: Path) -> None:
    """A machine with a GPU that trains need not be the one that exports."""
    recipe = {
        "version": 1,
        "model": {"architecture": "efficientsci", "settings": {"in_ch": 2, "units": 1, "group_num": 1}},
        "clips": {"frames": 3, "size": 16, "resize": False},
        "train": {"phases": [{"crop": 8, "steps": 1, "rate": 1e-3}], "batch": 1, "cpu": True},
    }
    code = "from qsci_plugins.pipeline.float_run import train_recipe; from qsci_plugins.recipes import make_recipe\n"
    code += f"train_recipe(make_recipe({recipe!r}), {str(tmp_path / 'out')!r})"
    assert modules_after(code, "torch", "openvino", "av", "h5py", "nncf", "brevitas") == {"torch"}
    assert (tmp_path / "out" / "weights.safetensors").is_file()


def test_plain_progress_is_a_few_lines() -> None:
    stream = io.StringIO()
    progress = PlainProgress(stream, pause=0.0)
    with progress.stage("training", 4) as advance:
        advance(1, "L1 3.2")
        advance(2.5)
    progress.note("done")
    lines = stream.getvalue().splitlines()
    assert lines[:3] == ["training ...", "training: 1 of 4, L1 3.2", "training: 2.5 of 4"]
    assert re.fullmatch(r"training: \d+\.\d s", lines[3])
    assert lines[4] == "done"


def test_bars_on_a_terminal() -> None:
    """rich's bars, drawn into a pretended terminal."""
    code = (
        "import sys; sys.stderr.isatty = lambda: True\n"
        "from qsci_plugins.commands.console import console_progress\n"
        "with console_progress() as progress:\n"
        "    with progress.stage('training', 4) as advance:\n"
        "        advance(2, '[bold] is no markup'); advance(3, total=5)\n"
        "    progress.note('done [1]')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    assert re.search(r"training: \d+\.\d s", done.stderr)
    assert "done [1]" in done.stderr


def test_enlarging_needs_openvino_numpy_and_pillow_alone() -> None:
    code = (
        "import qsci_plugins; qsci_plugins.upscale; import qsci_plugins.openvino.runtime, qsci_plugins.commands.console"
    )
    heavy = ("torch", "nncf", "brevitas", "pydantic", "yaml", "skimage", "sklearn", "spandrel", "onnx")
    assert modules_after(code, "openvino", "numpy", "PIL", *heavy) <= {"openvino", "numpy", "PIL"}


def test_an_error_is_one_line_whatever_the_name(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    name = tmp_path / "a\nqsci: error: b\x1b[2J.yaml"
    name.write_text("x: 1")
    for arguments in (("validate", name), ("run", name, "-o", tmp_path / "out")):
        code, _, said = run(capsys, *arguments)
        assert code == 2
        assert said.splitlines()[-1].startswith(f"qsci: error: {tmp_path}/a\\nqsci: error: b\\x1b[2J.yaml: unknown key")
        assert said.count("\n") == 1

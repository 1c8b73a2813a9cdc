"""What a user gets: the wheel, installed in a fresh environment and used from an empty folder."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from qsci_plugins.data.photos import builtin_photos

REPOSITORY = Path(__file__).resolve().parent.parent
MAIN = "recipes/sr/edsr_x4_adabm_w4a4.yaml"
#: the main job with little of everything, and all of its steps
QUICK = [
    *("calibrate.count=4", "calibrate.patch=32", "calibrate.batch=2"),
    *("train.steps=2", "export.openvino={mode: routed, tile: [48, 64]}"),
    "evaluate=[{set: Small, folder: sets}]",
]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from this working tree; nothing is downloaded."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-index"]
    subprocess.run(
        [*command, "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(REPOSITORY)], check=True
    )
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel; what it depends on is that of the running interpreter."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=os.name != "nt", with_pip=False)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(python)]
    subprocess.run([*pip, "install", "--quiet", "--no-index", "--no-deps", str(wheel)], check=True)
    library = sysconfig.get_path("purelib", vars={"base": str(folder)})
    dependencies = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (Path(library) / "dependencies.pth").write_text("\n".join(dependencies) + "\n")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The empty folder that everything runs in."""
    return tmp_path_factory.mktemp("empty")


def execute(installed: Path, folder: Path, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command of the environment, run in `folder` with nothing of the working tree in reach."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "QSCI_"))}
    return subprocess.run(
        [str(installed / "bin" / name), *arguments],
        cwd=folder,
        env={**kept, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"},
        capture_output=True,
        text=True,
        check=False,
    )


def _photo() -> np.ndarray:
    """A cat's face, uint8 (96,128,3)."""
    return dict(builtin_photos("evaluation"))["chelsea"][80:176, 150:278]


@pytest.fixture(scope="module")
def run(installed: Path, folder: Path) -> Path:
    """The output of the main job on the built-in network and photos, cut short."""
    (folder / "sets" / "Small").mkdir(parents=True)
    Image.fromarray(_photo()).save(folder / "sets" / "Small" / "chelsea.png")
    overrides = [word for override in QUICK for word in ("--set", override)]
    done = execute(installed, folder, "qsci", "run", MAIN, "--output", "runs/demo", *overrides)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(Path("runs") / "demo")
    return folder / "runs" / "demo"


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        shipped = [file for file in (REPOSITORY / "recipes").rglob("*") if file.is_file()]  # the model zoo's page too
        recipes = {file.relative_to(REPOSITORY / "recipes").as_posix() for file in shipped}
        assert {name.partition("/shipped/")[2] for name in names if "/shipped/" in name} == recipes
        for recipe in recipes:
            inside = archive.read(f"qsci_plugins/recipes/shipped/{recipe}")
            assert inside == (REPOSITORY / "recipes" / recipe).read_bytes()
        weights = "qsci_plugins/weights/edsr_x4.safetensors"
        assert {"qsci_plugins/py.typed", weights} <= names
        assert archive.getinfo(weights).file_size <= 8_000_000
        sources = {file.relative_to(REPOSITORY).as_posix() for file in REPOSITORY.glob("qsci_plugins/**/*.py")}
        assert {name for name in names if name.endswith(".py")} == sources
        assert {name.split("/")[0].split("-")[0] for name in names} == {"qsci_plugins"}
        information = {name.partition(".dist-info/")[2] for name in names if ".dist-info/" in name}
        assert information == {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE"}


def test_python_takes_the_installed_package(installed: Path, folder: Path) -> None:
    done = execute(installed, folder, "python", "-c", "import qsci_plugins; print(qsci_plugins.__file__)")
    assert Path(done.stdout.strip()).is_relative_to(installed), done.stderr


def test_recipes_are_listed_and_valid_without_the_source_tree(installed: Path, folder: Path) -> None:
    listed = execute(installed, folder, "qsci", "recipes")
    assert listed.returncode == 0, listed.stderr
    names = [line.split()[0] for line in listed.stdout.splitlines()]
    assert MAIN in names
    done = execute(installed, folder, "qsci", "validate", *names)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(": valid") == len(names)


def numbers(value: Any) -> Iterator[float]:
    """All numbers of a JSON value."""
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from numbers(inner)
    elif isinstance(value, int | float):
        yield value


def test_the_main_job_leaves_everything(run: Path) -> None:
    names = {file.name for file in run.iterdir()}
    assert {"metrics.json", "summary.md", "recipe.yaml", "checkpoint.pt", "model"} <= names
    assert any(name.startswith("before_after") for name in names)
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["network"]["weights"] == "builtin:edsr_x4"
    assert metrics["network"]["settings"]["width"] == 64
    row = metrics["sets"]["Small"]
    found = list(numbers(metrics))
    assert len(found) > 100
    assert all(math.isfinite(number) for number in found)
    assert row["float"]["psnr"] > 20  # a trained network; random weights are far below
    assert abs(row["torch"]["psnr"] - row["float"]["psnr"]) < 3
    assert abs(row["torch"]["psnr"] - row["openvino"]["psnr"]) < 0.1
    assert 2 <= row["torch"]["fab"] <= 6


def test_its_model_enlarges_a_photo(installed: Path, folder: Path, run: Path) -> None:
    Image.fromarray(_photo()[:50, :90]).save(folder / "photo.png")
    done = execute(installed, folder, "qsci", "upscale", "runs/demo/model", "photo.png", "-o", "big.png")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["big.png"]
    with Image.open(folder / "photo.png") as small, Image.open(folder / "big.png") as big:
        assert big.size == (360, 200)
        assert big.mode == "RGB"
        shrunk = np.asarray(big.resize(small.size, Image.Resampling.BOX), np.float64)
        assert np.abs(shrunk - np.asarray(small)).mean() < 8


def test_a_users_types_are_checked(installed: Path, folder: Path) -> None:
    (folder / "user.py").write_text(
        "import qsci_plugins\n\nreveal_type(qsci_plugins.upscale)\nqsci_plugins.run(1, 2)\n"
    )
    (folder / "mypy.ini").write_text(
        "[mypy]\nfollow_imports = silent\nignore_missing_imports = True\n"
        "[mypy-torch.*,numpy.*,openvino.*,pydantic.*]\nfollow_imports = skip\n"
    )
    mypy = [sys.executable, "-m", "mypy", "--python-executable", str(installed / "bin" / "python")]
    command = [*mypy, "--cache-dir", str(folder / "mypy"), "user.py"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert "def (model: str | pathlib.Path, inputs: " in done.stdout, done.stdout + done.stderr
    assert 'Argument 1 to "run" has incompatible type "int"' in done.stdout

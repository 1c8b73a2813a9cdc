"""The base alone, in a fresh environment: what pip installs, its size, and a photo enlarged by the shipped network."""

from __future__ import annotations

import os
import subprocess
import venv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qsci_plugins.data.photos import builtin_photos
from qsci_plugins.openvino.builtin import find_model_folder
from qsci_plugins.openvino.runtime import Upscaler

pytestmark = pytest.mark.slow  # downloads 110 MB

REPOSITORY = Path(__file__).resolve().parent.parent
MOST_MEGABYTES = 400


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    venv.create(folder, symlinks=os.name != "nt", with_pip=True)
    python(folder, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", str(REPOSITORY))
    return folder


def python(base: Path, *arguments: str, cwd: Path | None = None) -> str:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "QSCI_"))}
    done = subprocess.run(
        [str(base / "bin" / "python"), *arguments], cwd=cwd, env=kept, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_is_small_and_whole(base: Path) -> None:
    size = sum(file.stat().st_size for file in base.rglob("*") if file.is_file() and not file.is_symlink())
    assert size < MOST_MEGABYTES * 2**20
    assert "No broken requirements" in python(base, "-m", "pip", "check")
    names = {line.split("==")[0] for line in python(base, "-m", "pip", "freeze").splitlines()}
    assert not names & {"torch", "nncf", "brevitas", "av", "scipy"}


def test_it_enlarges_a_photo_as_the_whole_installation_does(base: Path, tmp_path: Path) -> None:
    photo = dict(builtin_photos("evaluation"))["chelsea"][80:176, 150:278]
    Image.fromarray(photo).save(tmp_path / "photo.png")
    command = ["-m", "qsci_plugins", "upscale", "builtin:edsr_x4", "photo.png", "-o", "big.png"]
    python(base, *command, cwd=tmp_path)
    with Image.open(tmp_path / "big.png") as big:
        found = np.asarray(big)
    assert found.shape == (384, 512, 3)
    expected = Upscaler(find_model_folder("builtin:edsr_x4"), precision="auto").upscale(photo)
    assert np.abs(found.astype(int) - expected).mean() < 0.05  # another version of OpenVINO may round elsewhere

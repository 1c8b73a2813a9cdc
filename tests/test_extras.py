"""What the base installation does without the extras, and the line that says which one is missing."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from source_tree import REPOSITORY
from video_folder import TILE, Strided, exported

from qsci_plugins.extras import EXTRAS, MissingExtraError, missing_extra

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

#: what the distributions of the base are imported as, with those that they need themselves
BASE = {
    *("openvino", "numpy", "PIL", "tifffile", "pydantic", "pydantic_core", "annotated_types", "typing_inspection"),
    *("typing_extensions", "yaml", "_yaml", "rich", "markdown_it", "mdurl", "pygments", "isal"),
    *("packaging", "absl"),  # which openvino takes where they are, and does without
}
#: a program in an installation that lacks the packages in MISSING; at its end it lists the installed ones that it used
PROGRAM = """
import importlib.abc
import sys

class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {missing!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing())
code = 0
{code}
files = {{name.partition(".")[0]: getattr(module, "__file__", None) or "" for name, module in sys.modules.items()}}
print("used", *sorted(name for name, file in files.items() if "site-packages" in file))
sys.exit(code)
"""


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    with (REPOSITORY / "pyproject.toml").open("rb") as file:
        found: dict[str, Any] = tomllib.load(file)["project"]
    return found


def without(folder: Path, code: str, missing: set[str] | None = None) -> subprocess.CompletedProcess[str]:
    program = PROGRAM.format(code=code, missing=set(EXTRAS) if missing is None else missing)
    return subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=False)


def command(folder: Path, *arguments: str, missing: set[str] | None = None) -> subprocess.CompletedProcess[str]:
    code = f"from qsci_plugins.cli import main\ntry:\n    code = main({list(arguments)!r})\n"
    return without(folder, f"{code}except SystemExit as ended:\n    code = ended.code", missing)


def used(done: subprocess.CompletedProcess[str]) -> set[str]:
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("used"))
    return set(line.split()[1:]) - {"qsci_plugins", "_distutils_hack", "distutils-precedence"}


def photo(folder: Path) -> np.ndarray:
    pixels = np.tile(np.arange(0, 240, 4, dtype=np.uint8)[None, :, None], (40, 1, 3))
    Image.fromarray(pixels).save(folder / "photo.png")
    return pixels


@pytest.mark.parametrize("arguments", [["--help"], ["recipes"], ["upscale", "--help"]])
def test_help_and_recipes_need_the_base_alone(tmp_path: Path, arguments: list[str]) -> None:
    done = command(tmp_path, *arguments)
    assert not done.returncode, done.stderr
    assert used(done) <= BASE


def test_a_photo_is_enlarged_with_the_base_alone(tmp_path: Path) -> None:
    pixels = photo(tmp_path)
    done = command(tmp_path, "upscale", "builtin:edsr_x4", "photo.png", "-o", "big.png")
    assert done.returncode == 0, done.stderr
    assert used(done) <= BASE
    with Image.open(tmp_path / "big.png") as big:
        shrunk = np.asarray(big.resize((60, 40), Image.Resampling.BOX), np.float64)
    assert np.abs(shrunk - pixels).mean() < 2


def test_a_measurement_is_reconstructed_with_the_base_alone(tmp_path: Path) -> None:
    exported(tmp_path / "model", {0: Strided()}, frames=2)
    rng = np.random.default_rng(0)
    mask, measurement = rng.integers(0, 2, (2, *TILE)).astype(np.float32), rng.random(TILE, np.float32)
    np.save(tmp_path / "mask.npy", mask)
    np.save(tmp_path / "measurement.npy", measurement)
    done = command(
        tmp_path, "reconstruct", "model", "measurement.npy", "-o", "frames", "--mask", "mask.npy", "--white", "1"
    )
    assert done.returncode == 0, done.stderr
    assert used(done) <= BASE
    network, tensors = Strided(), [torch.from_numpy(each)[None] for each in (measurement, mask, mask.sum(0))]
    with torch.no_grad():
        expected = network(tensors[0], tensors[1], tensors[2].clamp(min=1)).numpy()[0]
    for number, frame in enumerate(expected.clip(0, 1), 1):
        with Image.open(tmp_path / "frames" / "measurement" / f"{number:05}.png") as image:
            assert np.asarray(image) / 255 == pytest.approx(frame, abs=0.02)


@pytest.mark.parametrize(
    ("missing", "arguments", "line"),
    [
        (None, ["run", "edsr_x4_adabm_w4a4", "-o", "out"], "torch: pip install 'qsci-plugins[nncf,train]'"),
        (None, ["validate", "edsr_x4_adabm_w4a4"], "torch: pip install 'qsci-plugins[nncf,train]'"),
        ({"nncf"}, ["run", "tiny.yaml", "-o", "out"], "nncf: pip install 'qsci-plugins[nncf]'"),
        ({"brevitas"}, ["run", "tiny.yaml", "-o", "out", "--set", "backend=brevitas"], "qsci-plugins[brevitas]'"),
        ({"skimage"}, ["run", "tiny.yaml", "-o", "out"], "scikit-image: pip install 'qsci-plugins[train]'"),
        (None, ["upscale", "builtin:edsr_x4", "clip.mp4", "-o", "big.mp4"], "av: pip install 'qsci-plugins[video]'"),
        (None, ["upscale", "builtin:edsr_x4", "deep.png", "-o", "big.png"], "av: pip install 'qsci-plugins[video]'"),
        (None, ["upscale", "m", ".", "-o", "big", "--cluster", "local"], "ray: pip install 'qsci-plugins[cluster]'"),
        ({"ray"}, ["sweep", "tiny.yaml", "--key", "seed=1", "-o", "s", "--cluster", "auto"], "qsci-plugins[cluster]'"),
        (None, ["reconstruct", "m", "a.mat", "-o", "out"], "scipy: pip install 'qsci-plugins[matlab]'"),
    ],
)
def test_a_missing_extra_is_one_line(tmp_path: Path, missing: set[str] | None, arguments: list[str], line: str) -> None:
    recipe = "version: 1\nmodel: {architecture: edsr, scale: 2, settings: {blocks: 1, width: 8}}\n"
    recipe += "scheme: {name: adabm}\ncalibrate: {count: 1, patch: 16, batch: 1}\n"
    (tmp_path / "tiny.yaml").write_text(recipe)
    (tmp_path / "clip.mp4").write_bytes(b"clip")
    (tmp_path / "deep.png").write_bytes(_deep_png())
    (tmp_path / "a.mat").write_bytes(b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM" + bytes(8))
    if "m" in arguments:
        exported(tmp_path / "m", {0: Strided()}, frames=2)
    done = command(tmp_path, *arguments, missing=missing)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    (error,) = (text for text in done.stderr.splitlines() if text.startswith("qsci: error"))
    assert line in error


@pytest.mark.parametrize(
    ("code", "missing", "extra"),
    [
        ("import qsci_plugins.nncf", "nncf", "nncf"),
        ("import qsci_plugins.nncf", "torch", "nncf"),
        ("from qsci_plugins.brevitas import QSCIAct", "brevitas", "brevitas"),
        ("from qsci_plugins.brevitas import QSCIAct", "torch", "brevitas"),
        ("import qsci_plugins.brevitas.onnx", "onnx", "onnx"),
        ("import qsci_plugins; qsci_plugins.quantize", "torch", "nncf,train"),
        ("import qsci_plugins; qsci_plugins.upscale_video('builtin:edsr_x4', 'a.mp4', 'b.mp4')", "av", "video"),
    ],
)
def test_an_import_names_its_extra(tmp_path: Path, code: str, missing: str, extra: str) -> None:
    (tmp_path / "a.mp4").write_bytes(b"clip")
    program = f"try:\n    {code}\nexcept ImportError as error:\n    import qsci_plugins\n"
    program += "    print(error)\n    assert isinstance(error, qsci_plugins.UserError)"
    done = without(tmp_path, program, {missing})
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].endswith(f"pip install 'qsci-plugins[{extra}]'")


def test_another_failed_import_stays_as_it_is() -> None:
    for error in (ModuleNotFoundError(name="of_ones_own"), ImportError("cannot import name"), MissingExtraError("x")):
        assert missing_extra(error) is error


def test_every_package_is_in_the_extra_that_is_named(project: dict[str, Any]) -> None:
    extras = {
        extra: [re.split(r"[<>=\[ ]", each)[0] for each in requirements]
        for extra, requirements in project["optional-dependencies"].items()
    }
    for distribution, extra in EXTRAS.values():
        assert distribution.split()[0] in extras[extra or "torch"]
    assert not {re.split(r"[<>=]", each)[0] for each in project["dependencies"]} & {
        distribution for distribution, _ in EXTRAS.values()
    }
    inside = re.match(r"qsci-plugins\[(.*)\]$", project["optional-dependencies"]["all"][0])
    assert inside
    assert {*inside[1].split(",")} == set(extras) - {"all", "test", "torch"}


def _deep_png() -> bytes:
    """One row of two pixels with 16 bits for each colour."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(b"\0" + struct.pack(">6H", *range(1000, 61000, 10000))))
    return b"\x89PNG\r\n\x1a\n" + header + pixels + chunk(b"IEND", b"")

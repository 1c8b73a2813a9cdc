"""Whatever a user may give by mistake: one clear line and exit code 2, or a correct result; never half an output."""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from qsci_plugins.cli import main

TINY = """version: 1
model: {architecture: edsr, scale: 2, settings: {blocks: 1, width: 8}}
scheme: {name: adabm, weight_bits: 4, activation_bits: 4}
place: {targets: ["body.*"], eight_bit: ["head.*", "tail.*"]}
calibrate: {count: 4, patch: 16, batch: 4}
evaluate: []
export: {openvino: {mode: none}}
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small exported network, x2."""
    folder = tmp_path_factory.mktemp("model")
    (folder / "tiny.yaml").write_text(TINY)
    command = ["run", str(folder / "tiny.yaml"), "-o", str(folder / "run")]
    assert main([*command, "--set", "export.openvino={mode: routed, tile: [64, 96]}"]) == 0
    return folder / "run"


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(TINY)
    return tmp_path / "tiny.yaml"


def refused(capsys: pytest.CaptureFixture[str], *arguments: str | Path, lines: int = 1) -> str:
    """Runs a command that must fail with `lines` errors, and nothing else, and returns them."""
    capsys.readouterr()
    code = main([str(argument) for argument in arguments])
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("qsci: ")]
    assert code == 2
    assert len(errors) == lines
    assert all(error.startswith("qsci: error: ") for error in errors)
    return "\n".join(errors)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("scheme.activation_bit=6", "scheme.activation_bit.*'activation_bits'"),
        ("modle.scale=2", "unknown key 'modle'.*'model'"),
        ("calibrate.count=lots", "calibrate.count: should be a valid integer, .*not 'lots'"),
        ("place.targets=[bdoy.*]", r"place.targets: .*'bdoy.\*'.*body"),
        ("place.float=['*']", "place: every layer is left in float"),
        ("model.weights=missing.pth", r"no weights file .*missing\.pth"),
        ("model.weights=builtin:edsr_x44", "builtin:edsr_x44"),
        ("model.architecture=esdr", "unknown architecture 'esdr'.*edsr"),
        ("model.architecture=swinir", "give model.weights"),
        ("model.settings={depth: 3}", "no setting 'depth'"),
        ("model={architecture: python:nowhere:Net}", "importing nowhere failed"),
        ("calibrate.images=[/no/such/folder]", "calibrate.images: /no/such/folder is not a folder"),
        ("calibrate.patch=512", "no photo is large enough"),
        ("evaluate=[{set: Set5}]", "evaluate.0: .*'Set5'.*--data DIR"),
        ("evaluate=[{set: builtin, scale: 4}]", "evaluate.0.scale is 4, but the network's scale is 2"),
        ("export.openvino={overlap: 90}", "overlap is 90, which needs tiles of"),
        ("backend=tensorrt", "backend: should be 'nncf' or 'brevitas', not 'tensorrt'"),
    ],
)
def test_a_wrong_recipe_is_refused_before_any_work(
    tiny: Path, capsys: pytest.CaptureFixture[str], wrong: str, message: str
) -> None:
    error = refused(capsys, "run", tiny, "-o", "out", "--set", wrong)
    assert re.search(message, error), error
    assert os.listdir() == ["tiny.yaml"]


def edsr_state(**changes: torch.Tensor) -> dict[str, torch.Tensor]:
    from qsci_plugins import load_network

    return {**load_network("edsr", None, 2, blocks=1, width=8).module.state_dict(), **changes}


class Bomb:
    """What an attacker would put into a checkpoint."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch exploded",)


def write_weights(kind: str) -> None:
    if kind == "nan":
        torch.save(edsr_state(**{"head.0.weight": torch.full((8, 3, 3, 3), float("nan"))}), "w.pth")
    elif kind == "other network":
        torch.save({"conv.weight": torch.zeros(3, 3, 3, 3), "conv.bias": torch.zeros(3)}, "w.pth")
    elif kind == "another edsr":
        torch.save(edsr_state(**{"body.0.body.2.weight": torch.zeros(8, 9, 3, 3)}), "w.pth")
    elif kind == "other scale":
        torch.save(edsr_state(), "w.pth")
    elif kind == "truncated":
        torch.save(edsr_state(), "whole.pth")
        content = Path("whole.pth").read_bytes()
        Path("w.pth").write_bytes(content[: len(content) // 2])
        Path("whole.pth").unlink()
    elif kind == "empty":
        Path("w.pth").touch()
    elif kind == "text":
        Path("w.pth").write_text("these are my weights")
    elif kind == "code":
        torch.save({"state_dict": Bomb()}, "w.pth")
    elif kind == "folder":
        Path("w.pth").mkdir()


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("nan", r"head\.0\.weight holds NaN"),
        ("other network", "holds neither edsr nor any other known network"),
        ("another edsr", r"body\.0\.body\.2\.weight is \(8, 9, 3, 3\)"),
        ("other scale", "for x2, but model.scale is 4"),
        ("truncated", "not a checkpoint, or a damaged one"),
        ("empty", "not a checkpoint, or a damaged one"),
        ("text", "not a checkpoint, or a damaged one"),
        ("code", "is refused: it holds Python code"),
        ("folder", "is a folder"),
    ],
)
def test_wrong_weights_are_refused_before_any_work(
    tiny: Path, capsys: pytest.CaptureFixture[str], kind: str, message: str
) -> None:
    write_weights(kind)
    scale = 4 if kind == "other scale" else 2
    changes = ["--set", "model.weights=w.pth", "--set", "model.settings={}", "--set", f"model.scale={scale}"]
    error = refused(capsys, "run", tiny, "-o", "out", *changes)
    assert re.search(message, error), error
    assert sorted(os.listdir()) == ["tiny.yaml", "w.pth"]


def write_image(name: str, pixels: np.ndarray) -> Path:
    Image.fromarray(pixels).save(name)
    return Path(name)


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize(
    ("name", "pixels", "mode"),
    [
        ("one.png", noise(1, 1, 3), "RGB"),
        ("line.png", noise(1, 300, 3), "RGB"),
        ("grey.png", noise(20, 30), "RGB"),
        ("rgba.png", noise(20, 30, 4), "RGBA"),
        ("deep.png", noise(20, 30).astype(np.uint16) * 257, "RGB"),
        ("wide.png", noise(3, 20_000, 3), "RGB"),
    ],
)
def test_unusual_images_are_enlarged(model: Path, tiny: Path, name: str, pixels: np.ndarray, mode: str) -> None:
    file = write_image(name, pixels)
    assert main(["upscale", str(model), str(file), "-o", "big.png"]) == 0
    with Image.open("big.png") as big:
        assert big.size == (2 * pixels.shape[1], 2 * pixels.shape[0])
        assert big.mode == mode


def test_deep_grey_and_coloured_forms_of_one_picture_give_one_result(model: Path, tiny: Path) -> None:
    grey = noise(20, 30)
    files = [
        write_image("a.png", np.stack([grey] * 3, 2)),
        write_image("b.png", grey),
        write_image("c.png", grey.astype(np.uint16) * 257),
        write_image("d.png", np.stack([grey] * 3 + [np.full_like(grey, 7)], 2)),
    ]
    assert main(["upscale", str(model), *map(str, files), "-o", "big"]) == 0
    results = [np.asarray(Image.open(f"big/{file.name}")) for file in files]
    for result in results[1:]:
        assert (result[..., :3] == results[0]).all()
    assert (results[3][..., 3] == 7).all()


def broken_image(kind: str) -> Path:
    file = Path("broken.png")
    if kind == "empty":
        file.touch()
    elif kind == "text":
        file.write_text("not an image")
    elif kind == "truncated":
        write_image("broken.png", noise(40, 40, 3))
        file.write_bytes(file.read_bytes()[:2000])
    elif kind == "folder":
        file.mkdir()
    elif kind == "float":
        file = Path("broken.tiff")
        Image.fromarray(np.zeros((4, 4), np.float32)).save(file)
    elif kind == "huge":  # a header that claims 100,000 x 100,000 pixels
        write_image("broken.png", noise(4, 4, 3))
        content = bytearray(file.read_bytes())
        content[16:24] = (100_000).to_bytes(4, "big") * 2
        import zlib

        content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
        file.write_bytes(content)
    return file


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("empty", "is an empty file"),
        ("text", "is not an image that can be read"),
        ("truncated", "is damaged or cut off"),
        ("missing", "does not exist"),
        ("folder", "no image in broken.png"),
        ("float", "floating-point numbers"),
        ("huge", "100000x100000 pixels, more than the limit"),
    ],
)
def test_an_image_that_cannot_be_used_is_one_error(
    model: Path, tiny: Path, capsys: pytest.CaptureFixture[str], kind: str, message: str
) -> None:
    file = broken_image(kind)
    before = sorted(os.listdir())
    assert re.search(message, refused(capsys, "upscale", model, file, "-o", "big.png"))
    assert sorted(os.listdir()) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_image_without_permission(model: Path, tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_image("secret.png", noise(4, 4, 3)).chmod(0)
    assert "Permission denied" in refused(capsys, "upscale", model, "secret.png", "-o", "big.png")


def test_a_folder_with_a_text_file_and_a_broken_image(
    model: Path, tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("in").mkdir()
    write_image("in/a.png", noise(4, 4, 3))
    Path("in/b.png").touch()
    write_image("in/c.jpg", noise(4, 4, 3))
    Path("in/notes.txt").write_text("holiday")
    assert "in/b.png is an empty file" in refused(capsys, "upscale", model, "in", "-o", "out")
    assert sorted(os.listdir("out")) == ["a.png", "c.jpg"]
    Path("in/b.png").unlink()
    assert main(["upscale", str(model), "in", "-o", "out", "--force"]) == 0
    assert "skipped in/notes.txt: not an image" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("inputs", "output", "message"),
    [
        (["a.png"], "there.png", "there.png exists"),
        (["a.png"], "a.png", "one of the images to enlarge"),
        (["a.png", "b.png"], "there.png", "is a file; name a folder for 2 images"),
        (["a.png"], "big.docx", "no image format has the suffix '.docx'"),
        (["a.png", "sub/a.png"], "out", "would both become"),
        (["a.png"], "there.png/out.png", "there.png"),
        (["rgba.png"], "big.jpg", "transparent"),
    ],
)
def test_outputs_that_cannot_be_written(
    model: Path, tiny: Path, capsys: pytest.CaptureFixture[str], inputs: list[str], output: str, message: str
) -> None:
    Path("sub").mkdir()
    for name in ("a.png", "b.png", "sub/a.png", "there.png"):
        write_image(name, noise(4, 4, 3))
    write_image("rgba.png", noise(4, 4, 4))
    before = {file: file.stat().st_mtime_ns for file in Path().rglob("*") if file.is_file()}
    assert message in refused(capsys, "upscale", model, *inputs, "-o", output)
    assert {file: file.stat().st_mtime_ns for file in Path().rglob("*") if file.is_file()} == before


@pytest.mark.parametrize("name", ["manifest.json", "*.bin", "*.xml"])
def test_a_damaged_model_folder_is_refused(
    model: Path, tiny: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    import shutil

    shutil.copytree(model / "model", "model")
    file = next(Path("model").glob(name))
    file.write_bytes(file.read_bytes()[:-3])
    write_image("a.png", noise(4, 4, 3))
    refused(capsys, "upscale", "model", "a.png", "-o", "big.png")
    assert not Path("big.png").exists()


def test_a_folder_that_is_no_model_or_run(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_image("a.png", noise(4, 4, 3))
    Path("empty").mkdir()
    for command in (["upscale", "empty", "a.png", "-o", "b.png"], ["evaluate", "empty"], ["bench", "empty"]):
        assert "empty" in refused(capsys, *command)


def test_sets_that_are_not_there(model: Path, tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("data/Set5/HR").mkdir(parents=True)
    assert "no image in" in refused(capsys, "evaluate", model, "--data", "data", "--sets", "Set5")
    assert "nearest is 'Set5'" in refused(capsys, "evaluate", model, "--data", "data", "--sets", "Set55")
    assert "no/such does not exist" in refused(capsys, "evaluate", model, "--data", "no/such")
    assert "no/such does not exist" in refused(capsys, "run", tiny, "-o", "out", "--data", "no/such")


def limit_file_size(size: int) -> None:
    """A disk that takes no file larger than this (the kernel would kill the process, were the signal not ignored)."""
    import signal

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@pytest.mark.parametrize("size", [100, 10_000, 60_000])
def test_a_disk_that_takes_no_more(tiny: Path, size: int) -> None:
    tiny.write_text(TINY.replace("width: 8", "width: 24") + "train: {steps: 2, precision: float32}\n")
    command = [sys.executable, "-m", "qsci_plugins", "run", "tiny.yaml", "-o", "out"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, preexec_fn=lambda: limit_file_size(size)
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1].startswith("qsci: error: ")
    assert "Traceback" not in done.stderr
    assert not Path("out").exists()
    for file in Path().rglob("*"):
        assert file.suffix in (".yaml", ".state", ".partial"), f"{file} was left behind"


def test_a_full_disk_while_enlarging(model: Path, tiny: Path) -> None:
    write_image("a.png", noise(100, 100, 3))
    command = [sys.executable, "-m", "qsci_plugins", "upscale", str(model), "a.png", "-o", "big.png"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, preexec_fn=lambda: limit_file_size(5000)
    )
    assert done.returncode == 2
    assert "qsci: error: cannot write big.png" in done.stderr.splitlines()[-1]
    assert sorted(os.listdir()) == ["a.png", "tiny.yaml"]


def test_an_existing_output_and_a_folder_that_is_no_output(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("letters").mkdir()
    Path("letters/dear.txt").write_text("x")
    assert "exists; name another, or replace it with --force" in refused(capsys, "run", tiny, "-o", "letters")
    assert "not the output of a run" in refused(capsys, "run", tiny, "-o", "letters", "--force")
    assert "is a file" in refused(capsys, "run", tiny, "-o", "letters/dear.txt", "--force")
    assert sorted(os.listdir()) == ["letters", "tiny.yaml"]

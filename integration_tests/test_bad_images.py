"""Images as people have them: each is enlarged, or refused with one clear line and nothing written."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qsci_plugins.cli import main

Refused = Callable[..., str]
Limit = Callable[[int], Callable[[], None]]


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
        ("grey.png", noise(20, 30), "L"),
        ("rgba.png", noise(20, 30, 4), "RGBA"),
        ("deep.png", noise(20, 30).astype(np.uint16) * 257, "I;16"),
        ("wide.png", noise(3, 20_000, 3), "RGB"),
    ],
)
def test_unusual_images_are_enlarged(tiny_run: Path, tiny: Path, name: str, pixels: np.ndarray, mode: str) -> None:
    file = write_image(name, pixels)
    assert main(["upscale", str(tiny_run), str(file), "-o", "big.png"]) == 0
    with Image.open("big.png") as big:
        assert big.size == (2 * pixels.shape[1], 2 * pixels.shape[0])
        assert big.mode == mode


def test_deep_grey_and_coloured_forms_of_one_picture_give_one_result(tiny_run: Path, tiny: Path) -> None:
    grey = noise(20, 30)
    files = [
        write_image("a.png", np.stack([grey] * 3, 2)),
        write_image("b.png", grey),
        write_image("c.png", grey.astype(np.uint16) * 257),
        write_image("d.png", np.stack([grey] * 3 + [np.full_like(grey, 7)], 2)),
    ]
    assert main(["upscale", str(tiny_run), *map(str, files), "-o", "big"]) == 0
    colour, plain, deep, clear = (np.asarray(Image.open(f"big/{file.name}")) for file in files)
    assert (clear[..., :3] == colour).all()
    assert (clear[..., 3] == 7).all()
    assert (plain == np.asarray(Image.fromarray(colour).convert("L"))).all()
    # the same before it is rounded
    assert np.abs(deep.astype(int) - 257 * plain.astype(int)).max() <= 257 * 2


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
    tiny_run: Path, tiny: Path, refused: Refused, kind: str, message: str
) -> None:
    file = broken_image(kind)
    before = sorted(os.listdir())
    assert re.search(message, refused("upscale", tiny_run, file, "-o", "big.png"))
    assert sorted(os.listdir()) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_image_without_permission(tiny_run: Path, tiny: Path, refused: Refused) -> None:
    write_image("secret.png", noise(4, 4, 3)).chmod(0)
    assert "Permission denied" in refused("upscale", tiny_run, "secret.png", "-o", "big.png")


def test_a_folder_with_a_text_file_and_a_broken_image(
    tiny_run: Path, tiny: Path, refused: Refused, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("in").mkdir()
    write_image("in/a.png", noise(4, 4, 3))
    Path("in/b.png").touch()
    write_image("in/c.jpg", noise(4, 4, 3))
    Path("in/notes.txt").write_text("holiday")
    assert "in/b.png is an empty file" in refused("upscale", tiny_run, "in", "-o", "out")
    assert sorted(os.listdir("out")) == ["a.png", "c.jpg"]
    Path("in/b.png").unlink()
    assert main(["upscale", str(tiny_run), "in", "-o", "out", "--force"]) == 0
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
    tiny_run: Path, tiny: Path, refused: Refused, inputs: list[str], output: str, message: str
) -> None:
    Path("sub").mkdir()
    for name in ("a.png", "b.png", "sub/a.png", "there.png"):
        write_image(name, noise(4, 4, 3))
    write_image("rgba.png", noise(4, 4, 4))
    before = {file: file.stat().st_mtime_ns for file in Path().rglob("*") if file.is_file()}
    assert message in refused("upscale", tiny_run, *inputs, "-o", output)
    assert {file: file.stat().st_mtime_ns for file in Path().rglob("*") if file.is_file()} == before


@pytest.mark.parametrize("name", ["manifest.json", "*.bin", "*.xml"])
def test_a_damaged_model_folder_is_refused(tiny_run: Path, tiny: Path, refused: Refused, name: str) -> None:
    shutil.copytree(tiny_run / "model", "model")
    file = next(Path("model").glob(name))
    file.write_bytes(file.read_bytes()[:-3])
    write_image("a.png", noise(4, 4, 3))
    refused("upscale", "model", "a.png", "-o", "big.png")
    assert not Path("big.png").exists()


def test_a_folder_that_is_no_model_or_run(tiny: Path, refused: Refused) -> None:
    write_image("a.png", noise(4, 4, 3))
    Path("empty").mkdir()
    for command in (["upscale", "empty", "a.png", "-o", "b.png"], ["evaluate", "empty"], ["bench", "empty"]):
        assert "empty" in refused(*command)


def test_a_full_disk_while_enlarging(tiny_run: Path, tiny: Path, file_size_limit: Limit) -> None:
    write_image("a.png", noise(100, 100, 3))
    command = [sys.executable, "-m", "qsci_plugins", "upscale", str(tiny_run), "a.png", "-o", "big.png"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, preexec_fn=file_size_limit(5000))
    assert done.returncode == 2
    assert "qsci: error: cannot write big.png" in done.stderr.splitlines()[-1]
    assert sorted(os.listdir()) == ["a.png", "tiny.yaml"]

"""A folder of images that was interrupted goes on; workers of a cluster get bytes and give bytes."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exact_network import exact_upscaler, nearest
from noted import Notes
from PIL import Image
from pretended_ray import PretendedRay

from qsci_plugins import UserError, upscale
from qsci_plugins.cli import main
from qsci_plugins.cluster import sharing
from qsci_plugins.commands import upscale_cluster


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exact_upscaler(tmp_path_factory.mktemp("exact") / "model")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(4):
        Image.fromarray(pixels(number)).save(folder / f"{number}.png")
    return folder


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[PretendedRay]:
    """Whatever `--cluster` names is this one."""
    ray = PretendedRay(2)
    monkeypatch.setattr(sharing, "load_ray", lambda: ray)
    monkeypatch.setattr(upscale_cluster, "connected", lambda *arguments: nullcontext())
    before = signal.getsignal(signal.SIGINT)
    yield ray
    signal.signal(signal.SIGINT, before)


def pixels(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (6, 8, 3), np.uint8)


def interrupted_after(count: int, model: Path, photos: Path, output: Path, **options: Any) -> str:
    """Ctrl-C when so many are written; what is said then."""
    written: list[Path] = []

    def stop(file: Path) -> None:
        written.append(file)
        if len(written) == count:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as interruption:
        upscale(model, [photos], output, on_written=stop, threads=1, **options)
    return str(interruption.value)


@pytest.mark.parametrize("options", [{}, {"cluster": "auto"}])
def test_an_interrupted_folder_goes_on(
    model: Path, photos: Path, tmp_path: Path, cluster: PretendedRay, options: dict[str, Any]
) -> None:
    output = tmp_path / "out"
    said = interrupted_after(2, model, photos, output, **options)
    assert said == "interrupted; the same command goes on after 2 of 4 images"
    first = sorted(output.glob("*.png"))
    assert len(first) == 2
    notes, again = Notes(), []
    files = upscale(model, [photos], output, progress=notes, on_written=again.append, threads=1, **options)
    assert files == [output / f"{number}.png" for number in range(4)]
    assert sorted(again) == sorted(set(files) - set(first))
    assert f"{output}: goes on after 2 of 4 images" in notes.notes
    assert sorted(output.iterdir()) == files
    for number, file in enumerate(files):
        assert np.array_equal(np.asarray(Image.open(file)), nearest(pixels(number)))
    with pytest.raises(UserError, match="exists; name another output"):
        upscale(model, [photos], output, threads=1, **options)


def test_what_was_changed_since_is_done_again_or_refused(model: Path, photos: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    interrupted_after(3, model, photos, output)
    Image.fromarray(pixels(9)).save(photos / "0.png")  # a source
    with pytest.raises(UserError, match=r"0\.png exists"):
        upscale(model, [photos], output, threads=1)
    (output / "0.png").unlink()
    Image.new("RGB", (3, 3)).save(output / "1.png")  # a result that somebody worked on
    with pytest.raises(UserError, match=r"1\.png exists"):
        upscale(model, [photos], output, threads=1)
    again: list[Path] = []
    upscale(model, [photos], output, on_written=again.append, threads=1, force=True)
    assert [file.name for file in again] == ["0.png", "1.png", "3.png"]
    assert np.array_equal(np.asarray(Image.open(output / "0.png")), nearest(pixels(9)))


def test_another_command_does_not_go_on(model: Path, photos: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    interrupted_after(2, model, photos, output)
    with pytest.raises(UserError, match="exists; name another output"):
        upscale(model, [photos], output, threads=1, tile=(16, 16))
    with pytest.raises(UserError, match="exists; name another output"):
        upscale(model, [photos], output, threads=1, precision="f32")
    other = tmp_path / "other"
    other.mkdir()
    for number in (7, 8):
        Image.fromarray(pixels(number)).save(other / f"{number}.png")
    assert len(upscale(model, [other], output, threads=1)) == 2  # beside the first one


def test_two_of_one_command_are_refused(model: Path, photos: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"

    def again(file: Path) -> None:
        with pytest.raises(UserError, match="another process is writing"):
            upscale(model, [photos], output, threads=1, force=True)

    upscale(model, [photos], output, on_written=again, threads=1)


def test_nothing_is_left_where_nothing_was_done(model: Path, tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"no image")
    with pytest.raises(UserError, match=r"a\.png"):
        upscale(model, [tmp_path / "a.png", tmp_path / "b.png"], tmp_path / "out", threads=1)
    assert not list(tmp_path.glob("out/*"))


def test_workers_give_what_this_process_gives(model: Path, photos: Path, tmp_path: Path, cluster: PretendedRay) -> None:
    """Metadata, notes and errors too, with the names that the files have here."""
    frames = [Image.fromarray(pixels(number)) for number in range(3)]
    frames[0].save(photos / "film.webp", save_all=True, append_images=frames[1:], lossless=True, duration=40)
    frames[0].save(photos / "tagged.jpg", exif=frames[0].getexif(), dpi=(300, 300))
    (photos / "broken.png").write_bytes((photos / "0.png").read_bytes()[:90])
    (photos / "unread.tif").symlink_to(photos / "nowhere")
    said, results = [], []
    for name, options in (("alone", {}), ("shared", {"cluster": "local", "jobs": 2})):
        notes, errors = Notes(), []
        upscale(
            model, [photos, photos / "film.webp"], tmp_path / name, progress=notes, on_error=errors.append, **options
        )
        results.append({file.name: file.read_bytes() for file in (tmp_path / name).iterdir()})
        said.append((sorted(notes.notes), sorted(map(str, errors))))
    assert results[0] == results[1]
    assert set(results[0]) == {"0.png", "1.png", "2.png", "3.png", "film.webp", "tagged.jpg"}
    assert said[0] == said[1]
    assert any(f"{photos / 'broken.png'}" in line for line in said[0][1])
    assert len(cluster.actors) == 2


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["a.png", "-o", "b.png", "--jobs", "2"], "--jobs counts the workers of a cluster; add --cluster local"),
        (["a.mp4", "-o", "b.mp4", "--cluster", "local", "--preview", "2s"], "--cluster is for files"),
        (["-", "-o", "-", "--size", "8x8", "--cluster", "local"], "--cluster is for files"),
        (["a.png", "-o", "b.png", "--cluster", "there"], "--cluster there: should be local, auto or HOST:PORT"),
    ],
)
def test_options_that_do_not_go_together(
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    reason: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.fromarray(pixels(0)).save("a.png")
    assert main(["upscale", str(model), *arguments]) == 2
    assert f"qsci: error: {reason}" in capsys.readouterr().err

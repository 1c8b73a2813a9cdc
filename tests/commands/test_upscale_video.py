"""Clips and raw frames through a model folder: every frame as an image would come out, in constant memory."""

from __future__ import annotations

import io
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cores import TWO_CORES
from openvino_networks import ADABM_BODY, calibrated_edsr

from qsci_plugins import Upscaler, UserError, upscale_raw, upscale_video
from qsci_plugins.cli import main
from qsci_plugins.data.images import write_image
from qsci_plugins.data.video.reading import VideoReader
from qsci_plugins.data.video.writing import VideoWriter
from qsci_plugins.openvino.export import export_upscaler
from qsci_plugins.openvino.precisions import Precision, precision_hint


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    stock, network = calibrated_edsr({}, ADABM_BODY)
    folder = tmp_path_factory.mktemp("routed") / "model"
    export_upscaler(network, stock, folder, tile=(32, 40), scale=2, overlap=8)
    return folder


def frames(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 24, 32, 3), dtype=np.uint8)


def test_raw_frames_are_upscaled_one_by_one(model: Path) -> None:
    target = io.BytesIO()
    assert upscale_raw(model, io.BytesIO(frames(3).tobytes()), target, (32, 24), threads=1) == 3
    upscaler = Upscaler(model, threads=1, precision="auto")
    assert target.getvalue() == b"".join(upscaler.upscale(frame).tobytes() for frame in frames(3))


def test_a_cache_of_compiled_graphs_is_the_commands_too(model: Path, tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "a.mp4", Fraction(12)) as writer:
        writer.write(frames(1)[0])
    cache = tmp_path / "cache"
    command = ["upscale", str(model), str(tmp_path / "a.mp4"), "-o", str(tmp_path / "b.mp4"), "--cache", str(cache)]
    assert main(command) == 0
    assert list(cache.glob("*.blob"))


@TWO_CORES
@pytest.mark.parametrize("way", ["images", "video", "raw"])
@pytest.mark.parametrize("precision", ["auto", "f32"])
def test_streams_and_precision_are_the_commands_too(
    model: Path, tmp_path: Path, way: str, precision: Precision, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Upscaler] = []
    strips = Upscaler.strips

    def watched(self: Upscaler, *arguments: Any, **options: Any) -> Any:
        opened.append(self)
        return strips(self, *arguments, **options)

    monkeypatch.setattr(Upscaler, "strips", watched)
    frame = frames(1)[0].repeat(3, 0).repeat(3, 1)
    write_image(tmp_path / "a.png", frame)
    with VideoWriter(tmp_path / "a.mp4", Fraction(12)) as writer:
        writer.write(frame)
    raw = io.BytesIO(frame.tobytes()), io.BytesIO()
    monkeypatch.setattr("qsci_plugins.commands.upscale.standard_streams", lambda: raw)
    files = {
        "images": [str(tmp_path / "a.png"), "-o", str(tmp_path / "b.png")],
        "video": [str(tmp_path / "a.mp4"), "-o", str(tmp_path / "b.mp4")],
        "raw": ["-", "-o", "-", "--size", "96x72"],
    }
    options = ["--tile", "model", "--threads", "2", "--streams", "2", "--precision", precision]
    assert main(["upscale", str(model), *files[way], *options]) == 0
    compiled = opened[0]._graphs.compiled.values()
    assert {graph.model.get_property("NUM_STREAMS") for graph in compiled} == {2}
    assert {graph.model.get_property("INFERENCE_NUM_THREADS") for graph in compiled} == {2}
    hints = {graph.model.get_property("INFERENCE_PRECISION_HINT").get_type_name() for graph in compiled}
    assert hints == {precision_hint(precision)}


def test_the_command_reads_standard_input(model: Path) -> None:
    command = [sys.executable, "-m", "qsci_plugins", "upscale", str(model), "-", "-o", "-", "--size", "32x24"]
    done = subprocess.run(command, input=frames(2).tobytes()[:-1], capture_output=True, check=False)
    assert done.returncode == 2
    assert len(done.stdout) == 48 * 64 * 3  # the whole frame before the broken one
    assert b"inside frame 2: 2303 of 2304 bytes" in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-", "-o", "-"], "need --size"),
        (["-", "-o", "a.png", "--size", "3x3"], "from - to -"),
        (["a.mp4", "b.png", "-o", "out"], "a video is enlarged alone"),
        (["a.mp4", "-o", "a.mp4", "--force"], "is the clip to enlarge"),
        (["a.mp4", "-o", "a.avi"], "cannot write a.avi"),
    ],
)
def test_mistakes(
    model: Path,
    tmp_path: Path,
    arguments: list[str],
    said: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    with VideoWriter("a.mp4", Fraction(10)) as writer:
        writer.write(frames(1)[0])
    Path("b.png").touch()
    assert main(["upscale", str(model), *arguments]) == 2
    assert said in capsys.readouterr().err
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.mp4", "b.png"]


@pytest.mark.parametrize("name", ["a.m4v", "a.MOV", "a.ts", "a.m2ts", "a.wmv"])
def test_what_is_a_video_elsewhere_is_one_here(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip = tmp_path / name
    clip.touch()
    assert main(["upscale", str(tmp_path), str(clip), str(clip), "-o", str(tmp_path / "out")]) == 2
    assert "a video is enlarged alone" in capsys.readouterr().err


def test_a_clip_keeps_its_length_and_rate(model: Path, tmp_path: Path) -> None:
    smooth = np.linspace(0, 255, 32).astype(np.uint8)[None, :, None].repeat(24, 0).repeat(3, 2)
    with VideoWriter(tmp_path / "a.mp4", Fraction(12)) as writer:
        for _ in range(5):
            writer.write(smooth)
    assert main(["upscale", str(model), str(tmp_path / "a.mp4"), "-o", str(tmp_path / "big.mp4")]) == 0
    reader = VideoReader(tmp_path / "big.mp4")
    enlarged = list(reader)
    assert reader.rate == 12
    assert [frame.shape for frame in enlarged] == [(48, 64, 3)] * 5
    expected = Upscaler(model, precision="auto").upscale(next(iter(VideoReader(tmp_path / "a.mp4"))))
    grey = np.array([0.299, 0.587, 0.114])  # a random network's colours are noise, which 4:2:0 does not keep
    assert np.corrcoef((enlarged[0] @ grey).ravel(), (expected @ grey).ravel())[0, 1] > 0.95
    with pytest.raises(UserError, match="--force"):
        upscale_video(model, tmp_path / "a.mp4", tmp_path / "big.mp4")


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="the system does not tell a process's peak memory")
def test_memory_does_not_grow_with_the_clip(model: Path) -> None:
    program = """
import io, resource, sys
from qsci_plugins import upscale_raw

class Source(io.RawIOBase):
    left = int(sys.argv[2])
    def read(self, size):
        self.left -= 1
        return bytes(size) if self.left >= 0 else b""

class Sink:
    def write(self, data): pass
    def flush(self): pass

upscale_raw(sys.argv[1], Source(), Sink(), (320, 240), threads=1)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""
    peaks = [
        int(subprocess.check_output([sys.executable, "-c", program, str(model), str(count)], text=True))
        for count in (4, 40)
    ]
    assert peaks[1] < peaks[0] + 20  # 40 enlarged frames are 35 MiB

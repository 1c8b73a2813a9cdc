"""What `--cluster` costs and brings on this machine: start-up, two workers beside one, scheduling, and one piece.

    python integration_tests/cluster_cost.py [PICTURES]

Needs two idle cores and the extra [cluster]; about four minutes for 200 pictures.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import cluster_cost  # as workers import it
import numpy as np
from PIL import Image

from qsci_plugins.cluster.connection import connected
from qsci_plugins.cluster.sharing import WorkerSpec, on_cluster
from qsci_plugins.commands.upscale_cluster import enlarge_images
from qsci_plugins.commands.upscale_settings import UpscaleSettings
from qsci_plugins.data.video.encoding import Encoding
from qsci_plugins.data.video.enlarging import code_frames, encoding_of, enlarge_segments
from qsci_plugins.data.video.reading import TimedFrame, VideoReader
from qsci_plugins.data.video.segments import Segment, WorkFolder
from qsci_plugins.data.video.writing import VideoWriter
from qsci_plugins.files import write_bytes
from qsci_plugins.openvino.builtin import find_model_folder
from qsci_plugins.openvino.pictures import enlarge_file
from qsci_plugins.progress import Progress

MODEL = "builtin:edsr_x4"
PICTURE, FRAME = (96, 128), (360, 640)
#: seconds, and bytes that go with each: those of a segment
PIECE, BYTES = 5.0, 32 << 20
#: bytes of a photo of FRAME, and of the enlarged one
PHOTO, BIG = 46_000, 4_160_000


def main(pictures: int) -> None:
    begun = time.perf_counter()
    with connected("local", 2):
        print(f"start-up of a local cluster: {time.perf_counter() - begun:.1f} s", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            _pictures(Path(folder), pictures)
            _scheduling()
            _photos(Path(folder))
            _segments(Path(folder))
        _pieces()


def _pictures(folder: Path, count: int) -> None:
    """Counted from the first picture to the last, without what workers take to start."""
    files = []
    for number, pixels in enumerate(_noise(count, PICTURE)):
        Image.fromarray(pixels).save(folder / f"{number}.png")
        files.append((folder / f"{number}.png", folder / f"{number}.big.png"))
    rates = []
    for workers in (1, 2, 1, 2):
        settings, times, spent = UpscaleSettings(cluster="local", jobs=workers), [], time.process_time()
        for _, error in enlarge_images(find_model_folder(MODEL), files, settings, Progress()):
            assert error is None, error
            times.append(time.perf_counter())
        rates.append((count - workers) / (times[-1] - times[workers - 1]))
        here = (time.process_time() - spent) / count
        print(
            f"{count} pictures of {PICTURE[1]}x{PICTURE[0]}, {workers} workers: {rates[-1]:.2f} a second,"
            f" {1000 * here:.1f} ms each in this process",
            flush=True,
        )
    print(f"two workers beside one: {(rates[1] + rates[3]) / (rates[0] + rates[2]):.2f} times", flush=True)


def _scheduling() -> None:
    """What a worker does not work of the time, pieces of a known length beside the bytes of a segment."""
    spec = WorkerSpec(cluster_cost.set_up, None, cluster_cost.wait, workers=2)
    pieces = ((number, np.zeros(BYTES, np.uint8)) for number in range(12))
    spans: dict[int, list[Any]] = {}
    for _, result in on_cluster(spec, pieces):
        assert not isinstance(result, Exception)
        spans.setdefault(result[0], []).append(result[1:])
    for pid, found in spans.items():
        whole = max(end for _, end in found) - min(start for start, _ in found)
        idle = 1 - sum(end - start for start, end in found) / whole
        print(
            f"worker {pid}: {len(found)} pieces of {PIECE:g} s, {100 * idle:.2f} % of the time between them", flush=True
        )


def _photos(folder: Path) -> None:
    """What photos cost this process, which reads, sends, gets and writes them: workers do nothing here."""
    count, content = 100, np.zeros(PHOTO, np.uint8).tobytes()
    spec = WorkerSpec(cluster_cost.set_up, None, cluster_cost.give, workers=2)
    spent = 0.0
    for number, (_, result) in enumerate(on_cluster(spec, ((n, content) for n in range(count)))):
        assert not isinstance(result, Exception)
        write_bytes(folder / "big", result)
        if number == 0:
            spent = time.process_time()
    here = (time.process_time() - spent) / (count - 1)
    print(f"a photo of {BIG / 1e6:g} MB enlarged: {1000 * here:.1f} ms of a core in this process", flush=True)


def _pieces() -> None:
    """What a worker takes for a photo, and for a frame of a clip with its code."""
    upscaler = UpscaleSettings(threads=1).upscaler(MODEL)
    frame = np.asarray(Image.effect_noise(FRAME[::-1], 60).convert("RGB"))
    upscaler.upscale(frame)
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "photo.jpg", Path(folder) / "photo.png"
        Image.fromarray(frame).save(source)
        spent = time.process_time()
        enlarge_file(upscaler, source, target)
        print(f"a photo of {FRAME[1]}x{FRAME[0]}: {time.process_time() - spent:.2f} s of a core", flush=True)
    encoding = Encoding(4 * FRAME[1], 4 * FRAME[0], Fraction(1, 25), Fraction(25))
    spent = time.process_time()
    code_frames([TimedFrame(frame, index) for index in range(3)], upscaler.upscale, encoding)
    print(f"a frame of {FRAME[1]}x{FRAME[0]}: {(time.process_time() - spent) / 3:.2f} s of a core", flush=True)


def _segments(folder: Path) -> None:
    """What a clip costs this process, which decodes it: workers do nothing here."""
    clip = folder / "clip.mp4"
    with VideoWriter(clip, Fraction(25)) as writer:
        for pixels in _noise(180, FRAME):
            writer.write(pixels)
    with VideoReader(clip) as reader, WorkFolder(folder / "big.mp4", {}) as work:
        begun, spent, encoding = time.perf_counter(), time.process_time(), encoding_of(reader, 4)

        def code(pieces: Any) -> Iterator[Segment]:
            spec = WorkerSpec(cluster_cost.set_up, None, cluster_cost.drop, workers=2)
            for _, result in on_cluster(spec, enumerate(pieces), in_order=True):
                assert not isinstance(result, Exception)
                yield result

        enlarge_segments(reader, code, encoding, work)
        count = len(work.counts)
        work.remove()
    print(
        f"a segment of {180 // count} frames of {FRAME[1]}x{FRAME[0]}: {(time.process_time() - spent) / count:.2f} s of a core"
        f" in this process ({(time.perf_counter() - begun) / count:.2f} s with the start of the workers)",
        flush=True,
    )


def _noise(count: int, size: tuple[int, int]) -> Iterator[np.ndarray]:
    random = np.random.default_rng(0)
    for _ in range(count):
        coarse = random.integers(0, 256, (size[0] // 8, size[1] // 8, 3), np.uint8)
        yield np.asarray(Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC))


def set_up(shared: None) -> None:
    """Nothing."""


def wait(state: None, content: np.ndarray) -> tuple[int, float, float]:
    """The process, and when it began and ended."""
    import os

    start = time.monotonic()
    time.sleep(PIECE)
    return os.getpid(), start, time.monotonic()


def give(state: None, content: bytes) -> bytes:
    """An enlarged photo."""
    return bytes(BIG)


def drop(state: None, frames: list[Any]) -> Segment:
    """As many frames, of nothing."""
    from qsci_plugins.data.video.encoding import EncodedFrame

    return Segment(b"", [EncodedFrame(frame.stamp, True, b"") for frame in frames])


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)

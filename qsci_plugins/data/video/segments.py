"""A clip that is coded in segments, each on disk when it is finished, so that a run that was killed goes on there."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np

from qsci_plugins.data.video.encoding import EncodedFrame
from qsci_plugins.errors import UserError
from qsci_plugins.files import locked, write_bytes, write_text

__all__ = ["Segment", "WorkFolder", "segment_frames"]

#: pixels in a segment: its frames and their codes are in memory until it is finished
_SEGMENT_PIXELS = 1 << 27
_MOST_FRAMES, _FEWEST_FRAMES = 120, 8


def segment_frames(width: int, height: int) -> int:
    """How many frames of this size are coded together: some seconds of a small clip, and what can be lost of a large one."""
    return max(_FEWEST_FRAMES, min(_MOST_FRAMES, _SEGMENT_PIXELS // (width * height)))


class Segment(NamedTuple):
    """Coded frames that need no others to be decoded, and the encoder's header."""

    header: bytes
    frames: list[EncodedFrame]


class WorkFolder:
    """The hidden folder beside `output` that holds the segments finished so far: about as many bytes as the output.

    `origin` is what they were made from and how. Segments of another origin are removed, and so are those after one that
    does not read. A context manager, and one process's at a time. Raises UserError where another one has it, and where the
    disk refuses.
    """

    def __init__(self, output: Path, origin: Mapping[str, Any]) -> None:
        self.path = work_path(output)
        self._held = ExitStack()
        try:
            self.path.mkdir(exist_ok=True)
            self._held.enter_context(
                locked(self.path, f"another process is writing {output}; wait, or name another output")
            )
            self._begin(json.dumps(dict(origin), sort_keys=True))
        except OSError as error:
            raise UserError(f"cannot write {output}: {error.strerror or error}") from error
        #: the frames in each finished segment
        self.counts = list(self._count())

    def _begin(self, description: str) -> None:
        if self._text("origin.json") != description:
            for file in self.path.iterdir():
                file.unlink()
            self._write_text("origin.json", description)

    @property
    def frames(self) -> int:
        """The frames that are finished."""
        return sum(self.counts)

    @property
    def end(self) -> int | None:
        """The tick where the last frame ends, once all are finished."""
        text = self._text("end.json")
        return None if text is None else int(json.loads(text))

    def add(self, segment: Segment) -> None:
        """Writes the next segment."""
        arrays: dict[str, Any] = {
            "header": np.frombuffer(segment.header, np.uint8),
            "stamps": np.array([frame.stamp for frame in segment.frames], np.int64),
            "keys": np.array([frame.is_key for frame in segment.frames]),
            "sizes": np.array([len(frame.data) for frame in segment.frames], np.int64),
            "data": np.frombuffer(b"".join(frame.data for frame in segment.frames), np.uint8),
        }
        content = io.BytesIO()
        np.savez(content, **arrays)
        write_bytes(self._file(len(self.counts)), content.getvalue())
        self.counts.append(len(segment.frames))

    def finish(self, end: int) -> None:
        """Notes that all frames are there, and the tick where the last one ends."""
        self._write_text("end.json", str(end))

    def segments(self) -> Iterator[Segment]:
        """What was written, in order."""
        for index in range(len(self.counts)):
            with np.load(self._file(index), allow_pickle=False) as content:
                header, data = content["header"].tobytes(), content["data"].tobytes()
                ends = np.cumsum(content["sizes"])
                frames = zip(content["stamps"], content["keys"], content["sizes"], ends, strict=True)
                yield Segment(
                    header, [EncodedFrame(int(s), bool(key), data[end - size : end]) for s, key, size, end in frames]
                )

    def stamps(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The times of each segment's frames, and which are key frames, in coding order."""
        for index in range(len(self.counts)):
            with np.load(self._file(index), allow_pickle=False) as content:
                yield content["stamps"], content["keys"]

    def __enter__(self) -> WorkFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leaves what is finished for the next run; a folder in which nothing is goes."""
        if not self.counts:
            self.remove()
        self._held.close()

    def remove(self) -> None:
        """Removes the folder and all in it."""
        with suppress(FileNotFoundError):
            shutil.rmtree(self.path)

    def _file(self, index: int) -> Path:
        return self.path / f"{index:06}.npz"

    def _count(self) -> Iterator[int]:
        index = 0
        while self._file(index).is_file():
            try:
                with np.load(self._file(index), allow_pickle=False) as content:
                    sizes = content["sizes"]
                    if content["data"].size != sizes.sum():
                        break
                yield len(sizes)
            except (OSError, ValueError, KeyError, BadZipFile, EOFError):
                break
            index += 1
        while self._file(index).exists():
            with suppress(OSError):
                (self.path / "end.json").unlink()
            self._file(index).unlink()
            index += 1

    def _text(self, name: str) -> str | None:
        try:
            return (self.path / name).read_text(encoding="utf-8")
        except (FileNotFoundError, NotADirectoryError, UnicodeDecodeError):
            return None

    def _write_text(self, name: str, text: str) -> None:
        write_text(self.path / name, text)


def work_path(output: Path) -> Path:
    """Where the segments of `output` are kept."""
    digest = hashlib.sha256(os.fsencode(output.name)).hexdigest()[:8]
    return output.with_name(f".{output.name[:40]}.{digest}.parts")

"""Video files and raw streams, one 8-bit RGB frame at a time, so that a clip of any length takes the same memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import av
import numpy as np
from numpy.typing import NDArray

from qsci_plugins.errors import UserError
from qsci_plugins.files import replacing

__all__ = ["VideoReader", "VideoWriter", "raw_frames"]

Frame = NDArray[np.uint8]

#: what is written, as H.264
_WRITABLE = (".mp4", ".mkv", ".mov")


class VideoReader:
    """The frames of a video file, each (H,W,3) the right way up.

    `frames` is their number as the file tells it, 0 where it does not. `rate` is in frames per second.

    Raises UserError for a file that holds no video, and at the frame where a damaged one breaks off.
    """

    def __init__(self, file: str | Path) -> None:
        self.file = Path(file)
        try:
            self.container = av.open(str(self.file))
        except (av.error.FFmpegError, OSError) as error:
            raise UserError(f"cannot read {self.file} as a video: {_reason(error)}") from error
        if not self.container.streams.video:
            self.container.close()
            raise UserError(f"{self.file} holds no video")
        self.stream = self.container.streams.video[0]
        self.stream.thread_type = "AUTO"
        self.rate: Fraction = self.stream.average_rate or Fraction(25)
        self.frames = self.stream.frames or self._guess()

    @property
    def audio(self) -> Any | None:
        """The first audio stream, if any."""
        return self.container.streams.audio[0] if self.container.streams.audio else None

    def __iter__(self) -> Iterator[Frame]:
        return (item for item in self.items() if isinstance(item, np.ndarray))

    def items(self) -> Iterator[Frame | Any]:
        """Frames and, between them, the packets of the audio stream as they lie in the file."""
        streams = [self.stream, *([] if self.audio is None else [self.audio])]
        count = 0
        try:
            for packet in self.container.demux(streams):
                if packet.stream is not self.stream:
                    if packet.dts is not None:
                        yield packet
                    continue
                for frame in packet.decode():
                    assert isinstance(frame, av.VideoFrame)
                    count += 1
                    # phones store frames as the sensor lies and say how to turn them
                    yield np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))
        except (av.error.FFmpegError, OSError) as error:
            raise UserError(f"{self.file} is damaged after frame {count}: {_reason(error)}") from error
        if not count:
            raise UserError(f"{self.file} holds no frame that can be decoded")

    def close(self) -> None:
        """Lets go of the file."""
        self.container.close()

    def _guess(self) -> int:
        duration = self.stream.duration
        if duration is not None and self.stream.time_base is not None:
            return round(float(duration * self.stream.time_base) * float(self.rate))
        return 0


class VideoWriter:
    """Writes H.264 beside `file` and renames it at the end; a failure leaves nothing.

    A context manager. `write` takes frames (H,W,3), all of the first one's size; `write_audio` takes packets of the
    reader's audio stream, which is copied as it is. Raises UserError for another suffix and where writing fails.
    """

    def __init__(self, file: str | Path, rate: Fraction, audio: Any | None = None, quality: int = 16) -> None:
        self.file = Path(file)
        if self.file.suffix.lower() not in _WRITABLE:
            raise UserError(f"cannot write {self.file}: videos are written as {', '.join(_WRITABLE)}")
        self._rate = rate
        self._quality = quality
        self._place = replacing(self.file, self.file.suffix)
        self._temporary = self._place.__enter__()
        self._stream: Any = None
        self._audio: Any = None
        self._waiting: list[Any] = []  # audio from before the first frame: all streams must be there first
        try:
            self._container = av.open(str(self._temporary), "w")
            if audio is not None:
                with suppress(av.error.FFmpegError, ValueError):  # a codec that this container does not take
                    self._audio = self._container.add_stream_from_template(audio)
        except (av.error.FFmpegError, OSError) as error:
            self._discard()
            raise UserError(f"cannot write {self.file}: {_reason(error)}") from error

    @property
    def keeps_audio(self) -> bool:
        """Whether the container took the audio stream."""
        return self._audio is not None

    def write(self, frame: Frame) -> None:
        """Encodes the next frame. Odd sizes lose their last row or column, which 4:2:0 cannot hold."""
        height, width = (side - side % 2 for side in frame.shape[:2])
        try:
            if self._stream is None:
                self._stream = self._container.add_stream("libx264", rate=self._rate)
                self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, "yuv420p"
                self._stream.options = {"crf": str(self._quality), "preset": "veryfast"}
                for packet in self._waiting:
                    self._container.mux(packet)
                self._waiting = []
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame[:height, :width]), format="rgb24")
            self._container.mux(self._stream.encode(picture))
        except (av.error.FFmpegError, OSError) as error:
            raise UserError(f"cannot write {self.file}: {_reason(error)}") from error

    def write_audio(self, packet: Any) -> None:
        """Copies a packet of the audio stream."""
        if self._audio is not None:
            packet.stream = self._audio
            if self._stream is None:
                self._waiting.append(packet)
            else:
                self._container.mux(packet)

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None and self._stream is not None:
                self._container.mux(self._stream.encode())
            self._container.close()
        except (av.error.FFmpegError, OSError) as failure:
            self._discard()
            if kind is None:
                raise UserError(f"cannot write {self.file}: {_reason(failure)}") from failure
            return
        if kind is None:
            self._place.__exit__(None, None, None)
        else:
            self._discard()

    def _discard(self) -> None:
        self._place.__exit__(GeneratorExit, GeneratorExit(), None)


def raw_frames(stream: BinaryIO, width: int, height: int) -> Iterator[Frame]:
    """Frames (height,width,3) of raw 8-bit RGB, as `ffmpeg -f rawvideo -pix_fmt rgb24 -` writes them.

    Raises UserError where the stream ends inside a frame.
    """
    size = width * height * 3
    count = 0
    while data := stream.read(size):
        if len(data) != size:
            raise UserError(
                f"the input ends inside frame {count + 1}: {len(data)} of {size} bytes;"
                f" is {width}x{height} its size, and rgb24 its format?"
            )
        count += 1
        yield np.frombuffer(data, np.uint8).reshape(height, width, 3)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__

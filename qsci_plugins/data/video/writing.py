"""Frames as a video file of their own."""

from __future__ import annotations

from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from qsci_plugins.data.video.color import FromRGB
from qsci_plugins.data.video.encoding import CODEC, Encoding
from qsci_plugins.data.video.joining import check_writable
from qsci_plugins.data.video.opening import reason, url
from qsci_plugins.errors import UserError
from qsci_plugins.files import replacing

__all__ = ["VideoWriter"]


class VideoWriter:
    """Writes H.264 beside `file` and renames it at the end; a failure leaves nothing.

    A context manager. `write` takes frames (H,W,3), all of the first one's size, shown at `rate` per second. Pictures are
    coded as bt709, and tagged so. Raises UserError for another suffix and where writing fails.
    """

    def __init__(self, file: str | Path, rate: Fraction, quality: int = 16) -> None:
        self.file = Path(file)
        format_ = check_writable(self.file)
        self._rate = Fraction(rate)
        self._quality = quality
        self._replacing = ExitStack()
        self._stream: Any = None
        self._count = 0
        try:
            temporary = self._replacing.enter_context(replacing(self.file, self.file.suffix))
            self._container = av.open(url(temporary), "w", format=format_)
        except (av.error.FFmpegError, OSError) as error:
            raise UserError(f"cannot write {self.file}: {reason(error)}") from error

    def write(self, frame: NDArray[np.uint8]) -> None:
        """Encodes the next frame. Odd sizes lose their last row or column, which 4:2:0 cannot hold."""
        height, width = (side - side % 2 for side in frame.shape[:2])
        try:
            if self._stream is None:
                encoding = Encoding(width, height, 1 / self._rate, self._rate, quality=self._quality)
                self._stream = self._container.add_stream(CODEC, rate=self._rate)
                encoding.apply(self._stream.codec_context)
                self._from_rgb = FromRGB(encoding.color)
            picture = self._from_rgb(frame[:height, :width])
            picture.pts, picture.time_base = self._count, 1 / self._rate
            self._count += 1
            self._container.mux(self._stream.encode(picture))
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise UserError(f"cannot write {self.file}: {reason(error)}") from error

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        failure: Exception | None = None
        try:
            if kind is None and self._stream is not None:
                self._container.mux(self._stream.encode())
            self._container.close()
        except (av.error.FFmpegError, OSError) as found:
            failure = found
        if kind is not None or failure is None:
            self._replacing.__exit__(kind, error, trace)
            return
        self._replacing.__exit__(type(failure), failure, failure.__traceback__)
        raise UserError(f"cannot write {self.file}: {reason(failure)}") from failure

"""Raw streams of 8-bit RGB frames."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from qsci_plugins.errors import UserError

__all__ = ["raw_frames"]


def raw_frames(stream: BinaryIO, width: int, height: int) -> Iterator[NDArray[np.uint8]]:
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

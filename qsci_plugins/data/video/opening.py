"""Opening clips: by demuxers that name no other file, from the file system alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av

from qsci_plugins.errors import UserError
from qsci_plugins.files import check_regular

__all__ = ["open_clip", "reason", "url"]

#: FFmpeg's names of the containers that are read: none is a playlist, an image sequence or a device
_DEMUXERS = (
    "mov,mp4,m4a,3gp,3g2,mj2",
    "matroska,webm",
    "asf",
    "avi",
    "dv",
    "flv",
    "gif",
    "h264",
    "hevc",
    "ivf",
    "m4v",
    "mpeg",
    "mpegts",
    "mpegvideo",
    "mxf",
    "nut",
    "ogg",
    "yuv4mpegpipe",
)


def open_clip(file: Path) -> Any:
    """An `av` container of a regular file.

    Raises UserError for what is no file, or not one of the containers that clips come in: nothing that a file's content
    names (a playlist, another address) is ever opened.
    """
    check_regular(file)
    try:
        options = {"format_whitelist": ",".join(_DEMUXERS), "protocol_whitelist": "file"}
        return av.open(url(file), container_options=options, metadata_errors="replace")
    except av.error.ArgumentError as error:
        raise UserError(f"cannot read {file} as a video: it is none of the containers that clips come in") from error
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise UserError(f"cannot read {file} as a video: {reason(error)}") from error


def url(file: Path) -> str:
    """What FFmpeg takes for this file, whatever its name looks like."""
    return f"file:{file}"


def reason(error: Exception) -> str:
    """What FFmpeg or the system says, without the name of the file."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__

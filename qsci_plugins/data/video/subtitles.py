"""Subtitles of plain text, from one container's form to another's."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av

__all__ = ["TEXT_CODECS", "TextTrack"]

#: FFmpeg's decoders of subtitles that are text
TEXT_CODECS = ("ass", "ssa", "mov_text", "subrip", "srt", "text", "webvtt")

#: what every encoder of subtitles asks for: a style
_STYLE = b"""[Script Info]
ScriptType: v4.00+

[V4+ Styles]
Format: Name, Fontname, Fontsize, PrimaryColour, SecondaryColour, OutlineColour, BackColour, Bold, Italic, Underline, \
StrikeOut, ScaleX, ScaleY, Spacing, Angle, BorderStyle, Outline, Shadow, Alignment, MarginL, MarginR, MarginV, Encoding
Style: Default,Arial,16,&Hffffff,&Hffffff,&H0,&H0,0,0,0,0,100,100,0,0,1,1,0,2,10,10,10,1

[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
"""

#: ASS' line breaks, and its commands
_BREAK, _COMMAND = re.compile(r"\\[Nn]"), re.compile(r"\{[^}]*\}")


class TextTrack:
    """Texts of `stream` in a new track of the container `target`: tx3g in MP4 and QuickTime, SubRip elsewhere."""

    def __init__(self, stream: Any, target: Any) -> None:
        self._is_tx3g = target.format.name in ("mp4", "mov")
        self.target: Any = target.add_stream("mov_text" if self._is_tx3g else "subrip")
        self.target.codec_context.subtitle_header = _STYLE
        self.target.time_base = Fraction(1, 1000)

    def convert(self, packet: Any) -> Iterator[Any]:
        """The same text at the same time."""
        try:
            text = "\n".join(filter(None, map(_text, packet.decode())))
        except av.error.FFmpegError:
            return
        if not text:
            return
        content = text.encode()
        written = av.Packet(len(content).to_bytes(2, "big") + content if self._is_tx3g else content)
        written.pts = written.dts = packet.pts
        written.duration, written.time_base = packet.duration or 0, packet.time_base
        written.is_keyframe = True
        written.stream = self.target
        yield written

    def finish(self) -> Iterator[Any]:
        """Nothing waits."""
        yield from ()


def _text(subtitle: Any) -> str:
    dialogue = getattr(subtitle, "dialogue", b"")
    line = dialogue.decode(errors="replace") if isinstance(dialogue, bytes) else str(dialogue)
    return _COMMAND.sub("", _BREAK.sub("\n", line)).strip()

"""The sound, subtitles, chapters and titles of a clip: copied where the new container holds them, else named in a line."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import av

from qsci_plugins.data.video.clock import SteadyClock
from qsci_plugins.data.video.sound import AACTrack
from qsci_plugins.data.video.subtitles import TEXT_CODECS, TextTrack

__all__ = ["Tracks"]

#: what says how a track or a file was coded, not what it is
_TECHNICAL = ("encoder", "major_brand", "minor_version", "compatible_brands", "vendor_id", "handler_name", "software")
_TECHNICAL_PARTS = (
    "bps",
    "number_of_",
    "_statistics",
    "duration",
    "_uid",
    "_umid",
    "product_",
    "toolkit_",
    "pattern_ul",
)

#: QuickTime's own codes of languages whose code in ISO 639-2/T it does not know, and of those in 639-2/B
_QUICKTIME = {
    **{"bod": "tib", "cym": "wel", "deu": "ger", "ell": "gre", "eus": "baq", "gle": "iri", "hye": "arm", "isl": "ice"},
    **{"kat": "geo", "mkd": "mac", "msa": "may", "mya": "bur", "nld": "dut", "sqi": "alb", "swe": "sve", "zho": "chi"},
    **{"cze": "ces", "fre": "fra", "rum": "ron", "slo": "slk"},
}

_REFUSALS = (av.error.FFmpegError, OSError, ValueError, TypeError, AttributeError, NotImplementedError)


@dataclass
class _Copy:
    """A track whose packets go over as they are."""

    target: Any

    def convert(self, packet: Any) -> Iterator[Any]:
        packet.stream = self.target
        yield packet

    def finish(self) -> Iterator[Any]:
        yield from ()


@dataclass
class Tracks:
    """What `source` holds besides the film, made ready in `target`, an output container whose film was added already.

    `origin`: the time in seconds that becomes 0. `notes` are one line each about what is left out or changed.
    """

    source: Any
    film: Any
    target: Any
    origin: Fraction = Fraction(0)
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._tracks: dict[int, Any] = {}
        self._name = self.target.format.name
        lost = []
        for stream in self.source.streams:
            if stream.index == self.film.index or _is_chapters(stream):
                continue
            added = self._add(stream)
            if added is None:
                lost.append(_description(stream))
            elif added:
                self._describe(stream, self._tracks[stream.index].target)
        if lost:
            self.notes.append(f"left out, the output cannot hold: {', '.join(lost)}")
        self._describe_all()

    def packets(self) -> Iterator[Any]:
        """Packets for the output, about in the order of their times."""
        streams = [stream for stream in self.source.streams if stream.index in self._tracks]
        if not streams:
            return
        clocks: dict[int, SteadyClock] = {}
        for packet in self.source.demux(streams):
            if packet.dts is None or packet.size == 0:
                continue
            base = packet.time_base
            clock = clocks.setdefault(packet.stream.index, SteadyClock(packet.duration or 1, round(1 / base)))
            moved = clock(packet.dts - round(self.origin / base)) - packet.dts
            packet.dts += moved
            packet.pts = packet.dts if packet.pts is None else packet.pts + moved
            yield from self._tracks[packet.stream.index].convert(packet)
        for track in self._tracks.values():
            yield from track.finish()

    def lost_in(self, written: Any) -> list[str]:
        """What the finished file does not tell although the source does, one line each: tags, chapters, languages."""
        notes = []
        there = {key.lower() for key in written.metadata}
        tags = [key for key in self.source.metadata if not _is_technical(key) and key.lower() not in there]
        if tags:
            notes.append(f"left out, the output cannot hold the tags: {', '.join(sorted(tags))}")
        if len(written.chapters()) < len(self.source.chapters()):
            notes.append("left out, the output cannot hold: chapters")
        for index, track in self._tracks.items():
            stream, place = self.source.streams[index], track.target.index
            if place >= len(written.streams):
                notes.append(f"{_description(stream)} is damaged, and was left out")
            elif _language(stream) != "und" and _language(written.streams[place]) == "und":
                notes.append(f"left out, the output cannot hold the language of {_description(stream)}")
        return notes

    def _add(self, stream: Any) -> bool | None:
        """Whether packets will come; None where the output cannot hold the track."""
        if stream.type == "attachment":
            if "matroska" not in self._name:
                return None
            try:
                self.target.add_attachment(stream.name or "attachment", stream.mimetype or "", stream.data)
            except _REFUSALS:
                return None
            return False
        if stream.type not in ("audio", "subtitle") or stream.codec_context is None:
            return None
        if _takes(self._name, stream):
            self._tracks[stream.index] = _Copy(self.target.add_stream_from_template(stream))
            return True
        try:
            if stream.type == "audio":
                self._tracks[stream.index] = AACTrack(stream, self.target)
                self.notes.append(f"{_description(stream)} becomes AAC: the output cannot hold it as it is")
                return True
            if stream.codec_context.name in TEXT_CODECS:
                self._tracks[stream.index] = TextTrack(stream, self.target)
                return True
        except _REFUSALS:
            pass
        return None

    def _describe(self, source: Any, target: Any) -> None:
        for key, value in source.metadata.items():
            if not _is_technical(key):
                target.metadata[key] = value
        language = source.metadata.get("language")
        if language and self._name == "mov":
            target.metadata["language"] = _QUICKTIME.get(language, language)
        with suppress(*_REFUSALS):
            target.disposition = source.disposition

    def _describe_all(self) -> None:
        for key, value in self.source.metadata.items():
            if not _is_technical(key):
                self.target.metadata[key] = value
        for key, value in self.film.metadata.items():
            if not _is_technical(key):
                self.target.streams.video[0].metadata[key] = value
        chapters = self.source.chapters()
        for chapter in chapters:
            shift = round(self.origin / chapter["time_base"]) if chapter["time_base"] else 0
            chapter["start"], chapter["end"] = chapter["start"] - shift, chapter["end"] - shift
        if chapters:
            self.target.set_chapters(chapters)


def _takes(format_: str, stream: Any) -> bool:
    """Whether a container of this format begins with such a track."""
    try:
        with av.open(io.BytesIO(), "w", format=format_) as trial:
            trial.add_stream_from_template(stream)
            trial.start_encoding()
    except _REFUSALS:
        return False
    return True


def _language(stream: Any) -> str:
    language: str = stream.metadata.get("language", "und")
    return language


def _description(stream: Any) -> str:
    codec = stream.codec_context.name if stream.codec_context is not None else ""
    language = _language(stream)
    kind = "a picture" if stream.disposition & av.stream.Disposition.attached_pic else f"a {stream.type} track"
    if stream.type in ("audio", "attachment"):
        kind = kind.replace("a ", "an ", 1)
    details = ", ".join(detail for detail in (codec, "" if language == "und" else language) if detail)
    return f"{kind} ({details})" if details else kind


def _is_chapters(stream: Any) -> bool:
    """Whether a track holds the names of chapters, which are read as such."""
    return bool(stream.type == "data" and stream.name == "bin_data" and stream.container.chapters())


def _is_technical(key: str) -> bool:
    return key.lower() in _TECHNICAL or any(part in key.lower() for part in _TECHNICAL_PARTS) or key.lower() == "uid"

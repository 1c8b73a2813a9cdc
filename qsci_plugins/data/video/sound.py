"""Sound that a container cannot hold as it is, coded again as AAC."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import av

__all__ = ["AACTrack"]

#: the sampling rates that AAC knows, in Hz
_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350)

#: bits per second of a channel
_BIT_RATE = 96_000

#: gaps in the sound above this many seconds are filled with silence, shorter ones are the clock's rounding
_GAP = 0.03


class AACTrack:
    """Decodes the packets of `stream` and codes them as AAC into a new track of the container `target`."""

    def __init__(self, stream: Any, target: Any) -> None:
        self._source = stream
        context = stream.codec_context
        rate = context.sample_rate if context.sample_rate in _RATES else 48000
        self.target: Any = target.add_stream("aac", rate=rate)
        self.target.codec_context.layout = context.layout.name
        self.target.codec_context.bit_rate = _BIT_RATE * len(context.layout.channels)
        self.target.codec_context.open()
        self._rate = rate
        self._resampler = av.AudioResampler(format="fltp", layout=context.layout.name, rate=rate)
        self._fifo = av.AudioFifo()
        self._next: int | None = None

    def convert(self, packet: Any) -> Iterator[Any]:
        """The AAC packets that are ready once this one is heard."""
        try:
            frames = packet.decode()
        except av.error.InvalidDataError:  # a gap, which silence fills
            return
        for frame in frames:
            start = round(frame.pts * frame.time_base * self._rate) if frame.pts is not None else self._next
            for resampled in self._resampler.resample(frame):
                yield from self._take(resampled, start)
                start = None

    def finish(self) -> Iterator[Any]:
        """The rest."""
        for frame in self._source.codec_context.decode(None):
            for resampled in self._resampler.resample(frame):
                yield from self._take(resampled, None)
        for resampled in self._resampler.resample(None):
            yield from self._take(resampled, None)
        if self._fifo.samples:
            yield from self.target.encode(self._stamped(self._fifo.read(0, partial=True)))
        yield from self.target.encode(None)

    def _take(self, frame: Any, start: int | None) -> Iterator[Any]:
        if self._next is None:
            self._next = self._written = start or 0
        elif start is not None and start - self._next > _GAP * self._rate:
            self._write_silence(frame, start - self._next)
        self._write(frame)
        size = self.target.codec_context.frame_size or 1024
        while self._fifo.samples >= size:
            yield from self.target.encode(self._stamped(self._fifo.read(size)))

    def _write(self, frame: Any) -> None:
        assert self._next is not None
        frame.pts = None
        self._fifo.write(frame)
        self._next += frame.samples

    def _write_silence(self, like: Any, samples: int) -> None:
        silence = av.AudioFrame(format="fltp", layout=like.layout.name, samples=samples)
        silence.sample_rate = self._rate
        for plane in silence.planes:
            plane.update(bytes(plane.buffer_size))
        self._write(silence)

    def _stamped(self, frame: Any) -> Any:
        frame.pts, frame.time_base = self._written, 1 / _fraction(self._rate)
        frame.sample_rate = self._rate
        self._written += frame.samples
        return frame


def _fraction(value: int) -> Any:
    from fractions import Fraction

    return Fraction(value)

"""`qsci upscale` for clips: frame by frame, in constant memory, and on from where a killed run was."""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qsci_plugins import __version__
from qsci_plugins.commands.upscale_settings import UpscaleSettings, model_folder
from qsci_plugins.errors import UserError
from qsci_plugins.extras import naming_extras
from qsci_plugins.progress import Progress

if TYPE_CHECKING:
    from qsci_plugins.data.video.encoding import Encoding
    from qsci_plugins.data.video.reading import VideoReader
    from qsci_plugins.data.video.segments import WorkFolder
    from qsci_plugins.openvino.runtime import Upscaler

__all__ = ["VideoPreview", "preview_video", "upscale_video"]

#: frames in the network at once, whose tiles share its requests; others are decoded and coded meanwhile
_FRAMES_AT_ONCE = 2

#: bytes of the clip that tell it from another of the same size and time
_SAMPLE_BYTES = 1 << 20


@dataclass(frozen=True)
class VideoPreview:
    """A clip's enlarged beginning: its file, its frames, how many a second took, and the seconds that all of the clip would
    take, None where the clip does not tell its length."""

    file: Path
    frames: int
    fps: float
    total_seconds: float | None

    def __str__(self) -> str:
        total = "" if self.total_seconds is None else f"; the whole clip takes about {_duration(self.total_seconds)}"
        return f"preview: {self.frames} frames at {_speed(self.fps)}{total}"


def upscale_video(
    model: str | Path,
    clip: str | Path,
    output: str | Path,
    settings: UpscaleSettings | None = None,
    *,
    progress: Progress | None = None,
    **options: Any,
) -> Path:
    """Enlarges every frame of a video file and returns the file written; memory does not grow with its length.

    Every frame keeps its time, within one tick of the output's clock; colours are coded as the clip's are tagged; the
    shape of pixels, all sound, subtitles, chapters and titles are kept, and what the output cannot hold is noted. Turned
    clips come out upright, interlaced ones progressive. A run that was interrupted or killed goes on where it was: finished
    segments lie in a hidden folder beside the output until it is whole, about as many bytes again. `options` are single
    `settings`; with `preview` the first seconds alone are enlarged, as `preview_video` does, and with `cluster` the workers
    there enlarge a segment each, decoded here.

    Raises UserError for a clip that cannot be read, HDR, transparency, an output that exists (without `force`) and one that
    no video format has the suffix of.

    With the run that the example of `run` makes:

    >>> from fractions import Fraction
    >>> import numpy as np
    >>> import qsci_plugins
    >>> from qsci_plugins.data.video.writing import VideoWriter
    >>> with VideoWriter("clip.mp4", Fraction(10)) as clip:
    ...     clip.write(np.zeros((32, 40, 3), np.uint8))
    >>> qsci_plugins.upscale_video("runs/tiny", "clip.mp4", "big.mp4").name
    'big.mp4'
    """
    progress, settings = progress or Progress(), (settings or UpscaleSettings()).changed(options)
    if settings.preview is not None:
        preview = preview_video(model, clip, output, settings, progress=progress)
        progress.note(str(preview))
        return preview.file
    with naming_extras():
        from qsci_plugins.data.video.joining import join_segments
        from qsci_plugins.data.video.reading import DamagedClipError
        from qsci_plugins.data.video.segments import WorkFolder

    clip, output = Path(clip), Path(output)
    reader, upscaler, encoding = _prepare(model, clip, output, settings, progress)
    with reader, WorkFolder(output, _source(model, clip, settings, encoding)) as work:
        try:
            if work.end is None:
                if work.frames:
                    progress.note(f"{output}: goes on after frame {work.frames}")
                if settings.cluster is None:
                    _enlarge(reader, upscaler, encoding, work, progress)
                else:
                    _share(reader, model, settings, encoding, work, progress)
        except KeyboardInterrupt as interruption:
            if not work.frames:
                raise
            raise KeyboardInterrupt(
                f"interrupted; the same command goes on after frame {work.frames}"
            ) from interruption
        except DamagedClipError:
            work.remove()  # it would break off there again
            raise
        if reader.is_interlaced:
            progress.note(f"{output}: the clip is interlaced; its fields were merged into whole frames (bwdif)")
        for note in join_segments(work, encoding, output, clip, reader.stream.index, reader.origin):
            progress.note(f"{output}: {note}")
        work.remove()
    return output


def preview_video(
    model: str | Path,
    clip: str | Path,
    output: str | Path,
    settings: UpscaleSettings | None = None,
    *,
    progress: Progress | None = None,
    **options: Any,
) -> VideoPreview:
    """Enlarges the first `preview` seconds (default 2) of a clip, without its sound, and measures how long that takes.

    For an output big.mp4 it writes big.preview.mp4. Raises UserError as `upscale_video`.
    """
    progress, settings = progress or Progress(), (settings or UpscaleSettings()).changed(options)
    if settings.cluster is not None:
        raise UserError("a preview measures this machine alone; leave out --cluster")
    with naming_extras():
        from qsci_plugins.data.video.joining import join_segments
        from qsci_plugins.data.video.segments import WorkFolder

    clip, output = Path(clip), Path(output)
    output = output.with_name(f"{output.stem}.preview{output.suffix}")
    length = 2.0 if settings.preview is None else settings.preview
    reader, upscaler, encoding = _prepare(model, clip, output, settings, progress)
    with reader, WorkFolder(output, {"preview": length, "at": time.time_ns()}) as work:
        try:
            times = _enlarge(reader, upscaler, encoding, work, progress, length)
            join_segments(work, encoding, output, clip, reader.stream.index, reader.origin, only_film=True)
            shown = ((work.end or 0) * encoding.time_base) - reader.start * reader.time_base
        finally:
            work.remove()
    frames = len(times) - 1
    # the first frame waits until the network is compiled
    seconds = (times[-1] - times[1]) / (frames - 1) if frames > 1 else times[-1] - times[0]
    total = None
    if reader.seconds:
        total = times[1] - times[0] + seconds * (frames * max(1.0, reader.seconds / float(shown)) - 1)
    return VideoPreview(output, frames, 1 / max(seconds, 1e-9), total)


def _prepare(
    model: str | Path, clip: Path, output: Path, settings: UpscaleSettings, progress: Progress
) -> tuple[VideoReader, Upscaler, Encoding]:
    """All that can be refused before any work."""
    from qsci_plugins.data.video.enlarging import encoding_of
    from qsci_plugins.data.video.joining import check_writable
    from qsci_plugins.data.video.reading import VideoReader
    from qsci_plugins.data.video.refusals import changes, check_keepable

    if output.exists() and not settings.force:
        raise UserError(f"{output} exists; name another output, or replace it with --force")
    if output.exists() and clip.exists() and output.samefile(clip):
        raise UserError(f"{output} is the clip to enlarge; name another output")
    check_writable(output)
    if output.is_dir():
        raise UserError(f"cannot write {output}: it is a folder")
    if not output.parent.is_dir():
        raise UserError(f"cannot write {output}: there is no folder {output.parent}")
    model_folder(Path(model))
    reader = VideoReader(clip)
    try:
        upscaler = settings.upscaler(model)
        check_keepable(reader, upscaler.scale)
        for change in changes(reader, upscaler.scale):
            progress.note(f"{output}: {change}")
        return reader, upscaler, encoding_of(reader, upscaler.scale)
    except BaseException:
        reader.close()
        raise


def _enlarge(
    reader: VideoReader,
    upscaler: Upscaler,
    encoding: Encoding,
    work: WorkFolder,
    progress: Progress,
    seconds: float | None = None,
) -> list[float]:
    """Writes the segments; returns when it began and when each frame was done, in seconds; of previews alone."""
    from qsci_plugins.data.video.enlarging import enlarge_clip

    times = [time.perf_counter()]
    before = done = work.frames
    expected = reader.frames if seconds is None else min(reader.frames, round(seconds * float(reader.rate)))
    with progress.stage("upscaling", max(1, expected)) as advance:

        def on_frame() -> None:
            nonlocal done
            done += 1
            now = time.perf_counter()
            if seconds is not None:
                times.append(now)
            fps = (done - before) / max(1e-9, now - times[0])
            advance(done, text=_speed(fps), total=max(done, expected))

        enlarge_clip(
            reader, upscaler.upscale, encoding, work, seconds=seconds, workers=_FRAMES_AT_ONCE, on_frame=on_frame
        )
    return times


def _share(
    reader: VideoReader,
    model: str | Path,
    settings: UpscaleSettings,
    encoding: Encoding,
    work: WorkFolder,
    progress: Progress,
) -> None:
    """Writes the segments, which workers of a cluster enlarge and code."""
    from qsci_plugins.commands.upscale_cluster import code_segments, connection
    from qsci_plugins.data.video.enlarging import enlarge_segments

    with connection(settings, progress), progress.stage("upscaling", max(1, reader.frames)) as advance:
        start, before = time.perf_counter(), work.frames

        def on_segment(frames: int) -> None:
            fps = (work.frames - before) / max(1e-9, time.perf_counter() - start)
            advance(work.frames, text=_speed(fps), total=max(work.frames, reader.frames))

        code = code_segments(model, settings, encoding, progress)
        enlarge_segments(reader, code, encoding, work, on_segment=on_segment)


def _source(model: str | Path, clip: Path, settings: UpscaleSettings, encoding: Encoding) -> dict[str, Any]:
    """What segments of one run have in common: the clip, the network, its tiles and precision, and how frames are coded."""
    import av

    state = os.stat(clip)
    with clip.open("rb") as stream:
        beginning = hashlib.sha256(stream.read(_SAMPLE_BYTES)).hexdigest()
    manifest = (model_folder(Path(model)) / "manifest.json").read_bytes()
    return {
        "clip": [state.st_size, state.st_mtime_ns, beginning],
        "model": hashlib.sha256(manifest).hexdigest(),
        "tile": settings.tile,
        "precision": settings.precision,
        # pieces of other slices go together: a run may go on where there are more cores
        "encoding": {key: str(value) for key, value in asdict(encoding).items() if key != "threads"},
        "versions": [__version__, av.__version__, str(av.library_versions)],
    }


def _speed(fps: float) -> str:
    return f"{fps:.0f} fps" if fps >= 100 else f"{fps:.3g} fps"


def _duration(seconds: float) -> str:
    """12 s, 3 min 20 s, 2 h 5 min."""
    if seconds < 60:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"

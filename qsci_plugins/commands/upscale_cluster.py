"""`qsci upscale --cluster`: images, and segments of a clip, through the workers of a Ray cluster.

Files travel as bytes: machines of the cluster need this package, and no folder in common.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from qsci_plugins.cluster.connection import connected
from qsci_plugins.cluster.sharing import WorkerSpec, on_cluster
from qsci_plugins.commands.upscale_settings import UpscaleSettings, model_folder
from qsci_plugins.errors import UserError
from qsci_plugins.files import check_regular, write_bytes
from qsci_plugins.progress import Progress

if TYPE_CHECKING:
    from qsci_plugins.data.video.encoding import Encoding
    from qsci_plugins.data.video.reading import TimedFrame
    from qsci_plugins.data.video.segments import Segment
    from qsci_plugins.openvino.runtime import Upscaler

__all__ = ["code_segments", "connection", "enlarge_images"]


@dataclass(frozen=True)
class _Model:
    """The files of a model folder by their names, and how it is run."""

    files: dict[str, bytes]
    settings: UpscaleSettings

    def open(self) -> Upscaler:
        """Raises UserError as `Upscaler`."""
        with TemporaryDirectory(prefix="qsci-") as folder:  # it reads all of them at once
            for name, content in self.files.items():
                (Path(folder) / name).write_bytes(content)
            return self.settings.upscaler(folder)


@dataclass(frozen=True)
class _Image:
    """An image file, where it was and where the enlarged one goes, and what is in it."""

    source: Path
    target: Path
    content: bytes


@dataclass(frozen=True)
class _Enlarged:
    """What an image became, and what there is to note."""

    content: bytes
    notes: list[str]


@contextmanager
def connection(settings: UpscaleSettings, progress: Progress) -> Iterator[None]:
    """`connected` to the cluster of the settings."""
    assert settings.cluster is not None
    threads = settings.threads or 1
    with connected(settings.cluster, threads * (settings.jobs or 1), progress):
        yield


def enlarge_images(
    model: str | Path,
    files: Iterable[tuple[Path, Path]],
    settings: UpscaleSettings,
    progress: Progress,
) -> Iterator[tuple[Path, UserError | None]]:
    """Enlarges each source into its target; yields the source and why it failed, or None, as they come.

    Inside `connected`.
    """
    unread: list[tuple[Path, UserError]] = []
    targets: dict[Path, Path] = {}

    def images() -> Iterator[tuple[Path, _Image]]:
        for source, target in files:
            try:
                check_regular(source)
                content = source.read_bytes()
            except UserError as error:
                unread.append((source, error))
            except OSError as error:
                unread.append((source, UserError(f"cannot read {source}: {error.strerror}")))
            else:
                targets[source] = target
                yield source, _Image(source, target, content)

    for source, result in on_cluster(_spec(model, settings, _enlarge_image), images(), progress=progress):
        yield from unread
        unread.clear()
        if isinstance(result, UserError):
            yield source, result
            continue
        for note in result.notes:
            progress.note(note)
        try:
            target = targets.pop(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(target, result.content)
        except UserError as error:
            yield source, error
        except OSError as error:
            yield source, UserError(f"cannot make the folder {target.parent}: {error.strerror}")
        else:
            yield source, None
    yield from unread


def code_segments(
    model: str | Path, settings: UpscaleSettings, encoding: Encoding, progress: Progress
) -> Callable[[Iterable[list[TimedFrame]]], Iterator[Segment]]:
    """What enlarges and codes pieces of a clip, in order. Inside `connected`. Raises UserError as `on_cluster`."""

    def code(pieces: Iterable[list[TimedFrame]]) -> Iterator[Segment]:
        named = ((f"segment {number}", (frames, encoding)) for number, frames in enumerate(pieces, 1))
        for _, result in on_cluster(_spec(model, settings, _code_segment), named, in_order=True, progress=progress):
            if isinstance(result, UserError):
                raise result
            yield result

    return code


def _spec(model: str | Path, settings: UpscaleSettings, work: Callable[..., Any]) -> WorkerSpec[Any, Any, Any, Any]:
    folder, threads = model_folder(Path(model)), settings.threads or 1
    upscaler = settings.upscaler(model)  # what is wrong with the folder is said before anything starts
    names = ["manifest.json", *(entry.name for entry in upscaler.manifest.files())]
    files = {name: (folder / name).read_bytes() for name in names}
    alone = settings.changed({"threads": threads, "cluster": None, "jobs": None, "cache_dir": None})
    return WorkerSpec(_Model.open, _Model(files, alone), work, threads, settings.jobs)


def _enlarge_image(upscaler: Upscaler, image: _Image) -> _Enlarged:
    from qsci_plugins.openvino.pictures import enlarge_file

    notes: list[str] = []
    with TemporaryDirectory(prefix="qsci-") as folder:
        source, target = Path(folder) / "in" / image.source.name, Path(folder) / "out" / image.target.name
        source.parent.mkdir()
        source.write_bytes(image.content)

        def as_there(text: object) -> str:
            return str(text).replace(str(source), str(image.source)).replace(str(target), str(image.target))

        try:
            enlarge_file(upscaler, source, target, note=lambda text: notes.append(as_there(text)))
        except UserError as error:
            raise UserError(as_there(error)) from None
        return _Enlarged(target.read_bytes(), notes)


def _code_segment(upscaler: Upscaler, piece: tuple[list[TimedFrame], Encoding]) -> Segment:
    from qsci_plugins.data.video.enlarging import code_frames

    frames, encoding = piece
    return code_frames(frames, upscaler.upscale, encoding)

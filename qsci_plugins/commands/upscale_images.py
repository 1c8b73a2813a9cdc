"""`qsci upscale` for images: files and folders of them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qsci_plugins import __version__
from qsci_plugins.commands.upscale_record import Record
from qsci_plugins.commands.upscale_settings import UpscaleSettings, model_folder
from qsci_plugins.data.folders import WRITABLE_FORMATS, list_images
from qsci_plugins.errors import UserError
from qsci_plugins.progress import Advance, Progress

if TYPE_CHECKING:
    from qsci_plugins.openvino.runtime import Upscaler

__all__ = ["upscale"]


def upscale(
    model: str | Path,
    inputs: Sequence[str | Path],
    output: str | Path,
    settings: UpscaleSettings | None = None,
    *,
    progress: Progress | None = None,
    on_error: Callable[[UserError], None] | None = None,
    on_written: Callable[[Path], None] = lambda file: None,
    **options: Any,
) -> list[Path]:
    """Enlarges images of any size and returns the files written, in the order of the inputs.

    `model` is a run's output folder, the model folder in it, or builtin:NAME. `output` is a file for a single image, else
    a folder, where every image keeps its name. All frames of an animation and pages of a TIFF file are enlarged where the
    output can hold them; grey, 16 bits, transparency and metadata are kept, and one note says what cannot be (see
    `openvino.pictures`). What is no image in a folder is noted and skipped. Memory does not grow with the image but for
    the image itself and, unless it is written as PNG, its result. `options` are single `settings`; `on_written` hears of
    each file at once. Several images that were interrupted go on where they were: what is written stands in a hidden file
    in the output until all is. With `cluster`, workers there enlarge an image each, which is sent to them; memory then holds
    the files of two images a worker.
    Raises UserError where names clash or files exist (without `force`), before any work; then for the first image that
    cannot be read or written, or hands it to `on_error` and goes on with the next one.

    With the run that the example of `run` makes:

    >>> from PIL import Image
    >>> import qsci_plugins
    >>> Image.new("RGB", (40, 32), "teal").save("photo.png")
    >>> [file] = qsci_plugins.upscale("runs/tiny", ["photo.png"], "big.png")
    >>> Image.open(file).size
    (80, 64)
    """
    progress, settings = progress or Progress(), (settings or UpscaleSettings()).changed(options)
    folder = model_folder(Path(model))
    files = list_images(inputs, lambda file: progress.note(f"skipped {file}: not an image"))
    targets = _targets(files, Path(output), any(Path(path).is_dir() for path in inputs))
    wanted = dict(zip(files, targets, strict=True))
    record = Record(Path(output), _origin(folder, inputs, settings)) if len(files) > 1 else None
    before = record.finished(wanted) if record else set()
    _check(files, targets, settings.force, before)
    if before:
        progress.note(f"{output}: goes on after {len(before)} of {len(files)} images")
    left = [(source, target) for source, target in wanted.items() if source not in before]
    written = set(before)
    with (
        record.kept((source, wanted[source]) for source in before) if record else nullcontext(),
        _enlarging(folder, left, settings, progress) as results,
    ):
        try:
            for source, error in results:
                if error is None:
                    written.add(source)
                    if record:
                        record.add(source, wanted[source])
                    on_written(wanted[source])
                elif on_error is None:
                    raise error
                else:
                    on_error(error)
        except KeyboardInterrupt as interruption:
            if not record or not written:
                raise
            done = f"{len(written)} of {len(files)} images"
            raise KeyboardInterrupt(f"interrupted; the same command goes on after {done}") from interruption
    return [target for source, target in wanted.items() if source in written]


@contextmanager
def _enlarging(
    model: Path, files: Sequence[tuple[Path, Path]], settings: UpscaleSettings, progress: Progress
) -> Iterator[Iterator[tuple[Path, UserError | None]]]:
    """Gives each source, enlarged into its target, and why it failed, or None: one after another here, or as they come."""
    if settings.cluster is None:
        upscaler = settings.upscaler(model)
        with progress.stage("upscaling", len(files)) as advance:
            yield _enlarged_here(upscaler, files, advance, progress)
        return
    from qsci_plugins.commands.upscale_cluster import connection, enlarge_images

    with (
        connection(settings, progress),
        progress.stage("upscaling", len(files)) as advance,
        closing(_counted(enlarge_images(model, files, settings, progress), advance)) as results,
    ):
        yield results


def _enlarged_here(
    upscaler: Upscaler, files: Sequence[tuple[Path, Path]], advance: Advance, progress: Progress
) -> Iterator[tuple[Path, UserError | None]]:
    from qsci_plugins.openvino.pictures import enlarge_file

    for done, (source, target) in enumerate(files):
        error = None

        def on_part(part: float, before: int = done) -> None:
            advance(before + part)

        try:
            enlarge_file(upscaler, source, target, on_part, progress.note)
        except UserError as refusal:
            error = refusal
        yield source, error
        advance(done + 1)


def _counted(results: Iterator[Any], advance: Advance) -> Generator[Any, None, None]:
    for done, result in enumerate(results, 1):
        yield result
        advance(done)


def _origin(model: Path, inputs: Sequence[str | Path], settings: UpscaleSettings) -> list[Any]:
    """What decides the files that are written, besides what is in the inputs."""
    manifest = hashlib.sha256((model / "manifest.json").read_bytes()).hexdigest()
    return [__version__, manifest, settings.tile, settings.precision, [os.path.realpath(path) for path in inputs]]


def _targets(files: Sequence[Path], output: Path, is_folder: bool) -> list[Path]:
    """One file per image: `output` itself for a single image and a name with a suffix, else inside it."""
    if len(files) == 1 and not is_folder and not output.is_dir() and output.suffix:
        if output.suffix.lower() not in WRITABLE_FORMATS:
            raise UserError(f"cannot write {output}: no image format has the suffix {output.suffix!r}; use .png")
        return [output]
    if output.is_file():
        raise UserError(f"{output} is a file; name a folder for {len(files)} images")
    return [output / (file.name if file.suffix.lower() in WRITABLE_FORMATS else f"{file.stem}.png") for file in files]


def _check(files: Sequence[Path], targets: Sequence[Path], force: bool, finished: Collection[Path]) -> None:
    sources = {os.path.realpath(file) for file in files}
    taken: dict[Path, Path] = {}
    for file, target in zip(files, targets, strict=True):
        if target in taken:
            raise UserError(f"{taken[target]} and {file} would both become {target}; upscale them one after the other")
        taken[target] = file
        if os.path.realpath(target) in sources:
            raise UserError(f"{target} is one of the images to enlarge; name another output")
        if target.is_dir():
            raise UserError(f"{target} is a folder; name another output")
        if target.exists() and not force and file not in finished:
            raise UserError(f"{target} exists; name another output, or replace it with --force")

"""`qsci upscale` for images: files and folders of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from qsci_plugins.commands.upscale_settings import UpscaleSettings, model_folder
from qsci_plugins.data.folders import WRITABLE_FORMATS, list_images
from qsci_plugins.errors import UserError
from qsci_plugins.progress import Progress

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
    each file at once.
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
    model_folder(Path(model))
    files = list_images(inputs, lambda file: progress.note(f"skipped {file}: not an image"))
    targets = _targets(files, Path(output), any(Path(path).is_dir() for path in inputs))
    _check(files, targets, settings.force)
    upscaler = settings.upscaler(model)
    from qsci_plugins.openvino.pictures import enlarge_file

    written = []
    with progress.stage("upscaling", len(files)) as advance:
        for done, (file, target) in enumerate(zip(files, targets, strict=True), 1):

            def on_part(part: float, before: int = done - 1) -> None:
                advance(before + part)

            try:
                enlarge_file(upscaler, file, target, on_part, progress.note)
                written.append(target)
                on_written(target)
            except UserError as error:
                if on_error is None:
                    raise
                on_error(error)
            advance(done)
    return written


def _targets(files: Sequence[Path], output: Path, is_folder: bool) -> list[Path]:
    """One file per image: `output` itself for a single image and a name with a suffix, else inside it."""
    if len(files) == 1 and not is_folder and not output.is_dir() and output.suffix:
        if output.suffix.lower() not in WRITABLE_FORMATS:
            raise UserError(f"cannot write {output}: no image format has the suffix {output.suffix!r}; use .png")
        return [output]
    if output.is_file():
        raise UserError(f"{output} is a file; name a folder for {len(files)} images")
    return [output / (file.name if file.suffix.lower() in WRITABLE_FORMATS else f"{file.stem}.png") for file in files]


def _check(files: Sequence[Path], targets: Sequence[Path], force: bool) -> None:
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
        if target.exists() and not force:
            raise UserError(f"{target} exists; name another output, or replace it with --force")

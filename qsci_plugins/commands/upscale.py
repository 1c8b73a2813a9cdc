"""`qsci upscale`: images and clips through an exported network; needs OpenVINO and numpy, not torch."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from qsci_plugins.commands.options import frame_size, positive, seconds, tile_size
from qsci_plugins.commands.upscale_raw import standard_streams, upscale_raw
from qsci_plugins.commands.upscale_settings import UpscaleSettings, model_folder
from qsci_plugins.commands.upscale_video import preview_video, upscale_video
from qsci_plugins.data.folders import IMAGE_FORMATS, VIDEO_FORMATS, list_images
from qsci_plugins.data.images import read_photo, write_image
from qsci_plugins.errors import UserError
from qsci_plugins.progress import Progress

__all__ = ["UpscaleSettings", "add", "model_folder", "upscale"]


def add(commands: Any) -> None:
    """Adds the command to a parser."""
    parser = commands.add_parser("upscale", help="enlarge images and clips of any size with an exported network")
    parser.add_argument("model", type=Path, metavar="MODEL", help="a run's output, or the model folder in it")
    parser.add_argument(
        "inputs", type=Path, nargs="+", metavar="FILE", help="images, folders of images, a video, or - for raw frames"
    )
    parser.add_argument(
        "--output",
        "-o",
        type=Path,
        required=True,
        metavar="OUT",
        help="an image file (for one image), a folder, a video file, or - for raw frames",
    )
    parser.add_argument("--size", type=frame_size, metavar="WxH", help="width and height of raw rgb24 frames on stdin")
    parser.add_argument("--force", action="store_true", help="replace existing files")
    parser.add_argument("--threads", type=positive, metavar="N", help="CPU threads (default: all)")
    parser.add_argument(
        "--streams",
        type=positive,
        metavar="N",
        help="tiles at once, each in its own memory (default: OpenVINO's choice)",
    )
    parser.add_argument("--cache", type=Path, metavar="DIR", help="keep compiled graphs here for the next time")
    parser.add_argument(
        "--tile",
        type=tile_size,
        default="fit",
        metavar="SIZE",
        help="what large images are cut into: fit (the fastest within about 1 GiB, default), model (the exported size) or"
        " WxH; bits that adapt follow each tile's content",
    )
    parser.add_argument(
        "--preview",
        type=seconds,
        metavar="2s",
        help="enlarge the first seconds of a video into OUT.preview, and tell how long all of it would take",
    )
    parser.set_defaults(execute=_execute)


def upscale(
    model: str | Path,
    inputs: Sequence[str | Path],
    output: str | Path,
    settings: UpscaleSettings | None = None,
    *,
    progress: Progress | None = None,
    on_error: Callable[[UserError], None] | None = None,
    **options: Any,
) -> list[Path]:
    """Enlarges images of any size and returns the files written, in the order of the inputs.

    `model` is a run's output folder or the model folder in it. `output` is a file for a single image, else a folder,
    where every image keeps its name. Transparency is kept; what is no image in a folder is noted and skipped. Memory
    does not grow with the image but for the image itself and its result. `options` are single `settings`.
    Raises UserError where names clash or files exist (without `force`), before any work; then for the first image that
    cannot be read or written, or hands it to `on_error` and goes on with the next one.
    """
    progress, settings = progress or Progress(), (settings or UpscaleSettings()).changed(options)
    model_folder(Path(model))
    files = list_images(inputs, lambda file: progress.note(f"skipped {file}: not an image"))
    targets = _targets(files, Path(output), any(Path(path).is_dir() for path in inputs))
    _check(files, targets, settings.force)
    upscaler = settings.upscaler(model)
    written = []
    with progress.stage("upscaling", len(files)) as advance:
        for done, (file, target) in enumerate(zip(files, targets, strict=True), 1):

            def on_tile(tile: int, total: int, before: int = done - 1) -> None:
                advance(before + tile / total)

            try:
                _upscale_file(upscaler, file, target, on_tile)
                written.append(target)
            except UserError as error:
                if on_error is None:
                    raise
                on_error(error)
            advance(done)
    return written


def _upscale_file(upscaler: Any, file: Path, target: Path, on_tile: Callable[[int, int], None]) -> None:
    photo = read_photo(file)
    enlarged = upscaler.upscale(photo.rgb, on_tile)
    alpha = None if photo.alpha is None else _enlarged_alpha(photo.alpha, enlarged.shape[1], enlarged.shape[0])
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {target.parent}: {error.strerror}") from error
    write_image(target, enlarged, alpha, photo.icc_profile)


def _enlarged_alpha(alpha: np.ndarray, width: int, height: int) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.fromarray(alpha).resize((width, height), Image.Resampling.BICUBIC))


def _targets(files: Sequence[Path], output: Path, is_folder: bool) -> list[Path]:
    """One file per image: `output` itself for a single image and a name with a suffix, else inside it."""
    if len(files) == 1 and not is_folder and not output.is_dir() and output.suffix:
        if output.suffix.lower() not in IMAGE_FORMATS:
            raise UserError(f"cannot write {output}: no image format has the suffix {output.suffix!r}; use .png")
        return [output]
    if output.is_file():
        raise UserError(f"{output} is a file; name a folder for {len(files)} images")
    return [output / (file.name if file.suffix.lower() in IMAGE_FORMATS else f"{file.stem}.png") for file in files]


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


def _execute(arguments: argparse.Namespace) -> int:
    from qsci_plugins.commands.console import console_progress

    inputs, output = arguments.inputs, arguments.output
    settings = UpscaleSettings(
        force=arguments.force,
        threads=arguments.threads,
        streams=arguments.streams,
        cache_dir=arguments.cache,
        tile=arguments.tile,
        preview=arguments.preview,
    )
    if Path("-") in (*inputs, output) or arguments.size:
        if (inputs, output) != ([Path("-")], Path("-")) or not arguments.size:
            raise UserError(
                "raw frames go from - to -, and need --size WIDTHxHEIGHT: qsci upscale MODEL - -o - --size 640x360"
            )
        with console_progress() as progress:
            upscale_raw(arguments.model, *standard_streams(), arguments.size, settings, progress=progress)
        return 0
    if any(file.suffix.lower() in VIDEO_FORMATS and file.is_file() for file in inputs):
        if len(inputs) > 1:
            raise UserError("a video is enlarged alone; give the images in another command")
        target = output / inputs[0].with_suffix(".mp4").name if output.is_dir() else output
        with console_progress() as progress:
            if settings.preview is None:
                print(upscale_video(arguments.model, inputs[0], target, settings, progress=progress))
            else:
                preview = preview_video(arguments.model, inputs[0], target, settings, progress=progress)
                print(preview.file, preview, sep="\n")
        return 0
    if settings.preview is not None:
        raise UserError("--preview is for a video; images are enlarged at once")
    failures: list[UserError] = []
    with console_progress() as progress:
        for file in upscale(arguments.model, inputs, output, settings, progress=progress, on_error=failures.append):
            print(file)
    for error in failures:
        print(f"qsci: error: {error}", file=sys.stderr)
    return 2 if failures else 0
